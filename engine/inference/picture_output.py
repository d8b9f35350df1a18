"""From the output of a network to picture files with the values of its training targets."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
import tifffile

from data import imaging
from data.description import ImageFormat

_PNG_CHANNELS = (1, 2, 3, 4)
_GREY_OR_COLOUR = (1, 3)


def is_picture(channels: int, trained: ImageFormat | None) -> bool:
    """Whether outputs of a network can be written as pictures.

    Args:
      channels: of the outputs.
      trained: how the data set stored the training targets; None if that is not known.
    """
    return trained is not None or channels in _GREY_OR_COLOUR


def picture_files(rgb: tf.Tensor, *, trained: ImageFormat | None, input_dtype: str) -> dict[str, bytes]:
    """Encodes a picture with the values of the training targets.

    If the targets have 8 bits and the picture that was translated has 16, the result has 16.

    Args:
      rgb: [H, W, C], from -1 to 1.
      trained: how the data set stored the training targets; None if that is not known.
      input_dtype: of the picture that was translated: "uint8", "uint16" or "float32".

    Returns:
      Extension -> content of a file, the most exact one first: PNG if that can hold the values; otherwise
      TIFF, and a PNG with 8 bits to look at if there are 1 or 3 channels.
    """
    dtype, (low, high) = _value_format(trained, input_dtype)
    values = imaging.signed_to_range(rgb, low=low, high=high, dtype=tf.as_dtype(dtype)).numpy()
    channels = values.shape[-1]
    if dtype != "float32" and channels in _PNG_CHANNELS:
        return {".png": tf.io.encode_png(values).numpy()}
    files = {".tif": _tiff(values, has_alpha=trained is not None and trained.alpha)}
    if channels in _GREY_OR_COLOUR:
        files[".png"] = tf.io.encode_png(imaging.to_uint8(rgb)).numpy()
    return files


def _value_format(trained: ImageFormat | None, input_dtype: str) -> tuple[str, tuple[float, float]]:
    """Dtype and value range of the picture to write."""
    if trained is not None and (trained.dtype, tuple(trained.value_range)) != ("uint8", (0, 255)):
        return trained.dtype, trained.value_range
    return ("uint16", (0, 65535)) if input_dtype == "uint16" else ("uint8", (0, 255))


def _tiff(values: np.ndarray, *, has_alpha: bool) -> bytes:
    """Encodes [H, W, C] of any dtype and number of channels."""
    channels = values.shape[-1]
    colours = 3 if channels == 3 or (has_alpha and channels == 4) else 1
    extra = ["unassalpha" if has_alpha else "unspecified"] * (channels - colours)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        values if channels > 1 else values[..., 0],
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=extra or None,
        metadata=None,
    )
    return file.getvalue()
