"""The formats of picture files that a translation writes: what they can hold, and how they are encoded."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image

from engine.errors import ConfigurationError

PNG, JPEG, WEBP, TIFF = FORMATS = ("png", "jpeg", "webp", "tiff")

EXTENSIONS = {PNG: ".png", JPEG: ".jpg", WEBP: ".webp", TIFF: ".tif"}

_CHANNELS = {PNG: (1, 2, 3, 4), JPEG: (1, 3), WEBP: (1, 2, 3, 4)}
_QUALITY = 95  # of JPEG and WebP, of 100; a translation is not to look worse than the network made it


def check_format(format: str) -> None:
    """Raises ConfigurationError unless it is one of `FORMATS`."""
    if format not in FORMATS:
        raise ConfigurationError(f"--format={format}: unknown; use one of {', '.join(FORMATS)}")


def holds_channels(format: str, channels: int, *, has_alpha: bool) -> bool:
    """Whether a format can hold pictures of so many channels, transparency included.

    Args:
      format: one of `FORMATS`.
      channels: of the picture.
      has_alpha: whether the last one is transparency.
    """
    if format == WEBP and channels in (2, 4) and not has_alpha:
        return False  # WebP would drop colours where the last channel is 0
    return format == TIFF or channels in _CHANNELS[format]


def holds_dtype(format: str, dtype: str) -> bool:
    """Whether a format can hold values of "uint8", "uint16" or "float32"."""
    return dtype in {PNG: ("uint8", "uint16"), TIFF: ("uint8", "uint16", "float32")}.get(format, ("uint8",))


def encode(values: np.ndarray, format: str, *, has_alpha: bool) -> bytes:
    """Encodes a picture.

    Args:
      values: [H, W, C] of a dtype and number of channels that the format holds.
      format: one of `FORMATS`.
      has_alpha: whether the last channel is transparency.

    Raises:
      ConfigurationError: the format cannot hold a picture of that size.
    """
    if format == TIFF:
        return _tiff(values, has_alpha=has_alpha)
    if format == PNG:
        return tf.io.encode_png(values).numpy()
    file = io.BytesIO()
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    try:
        if format == JPEG:
            image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
        else:
            # `exact` keeps the colours of transparent pixels, which a later program may make visible.
            image.save(file, "WEBP", quality=_QUALITY, exact=True)
    except (OSError, ValueError) as error:
        height, width = values.shape[:2]
        raise ConfigurationError(
            f"{width}x{height} pixels do not fit into {format} ({error}); choose --format=png or tiff"
        ) from error
    return file.getvalue()


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
