"""Pictures as a Python program holds them: arrays, tensors, Pillow's images, or paths."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from data import imaging
from data.description import ImageFormat
from data.errors import DataError
from data.formats import pillow_images
from data.formats.image_info import ImageInfo, is_opaque
from engine.errors import ConfigurationError
from engine.pictures.picture_input import Picture, as_picture
from engine.pictures.role_format import RoleFormat

ValueRange = tuple[float, float]
_INTEGERS = ("uint8", "uint16")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_SIGNED = (-1.0, 1.0)
_ROUNDING = 1e-5  # of the range: what float32 arithmetic may have added


def _is_path(picture: Any) -> bool:
    return isinstance(picture, str | os.PathLike)


def are_several(pictures: Any) -> bool:
    """Whether it is a list of pictures, or a batch of them [B, H, W, C]."""
    return isinstance(pictures, list | tuple) or _is_batch(pictures)


def is_array(picture: Any) -> bool:
    """Whether a picture is an array or tensor, whose values do not say what they mean."""
    return not _is_path(picture) and not isinstance(picture, Image.Image)


def _is_batch(pictures: Any) -> bool:
    return not isinstance(pictures, list | tuple) and is_array(pictures) and np.ndim(pictures) == 4


def named_pictures(pictures: Any, *, what: str = "pictures") -> list[tuple[str, Any]]:
    """Takes pictures apart.

    Args:
      pictures: one, a list of them, or a batch [B, H, W, C].
      what: they are called in errors.

    Returns:
      (Name in errors, picture) of each; a path is its own name.

    Raises:
      ConfigurationError: there are none.
    """
    if not are_several(pictures):
        return [(os.fspath(pictures) if _is_path(pictures) else "the picture", pictures)]
    if not len(pictures):
        raise ConfigurationError(f"{what}: are none; give at least one")
    return [
        (os.fspath(picture) if _is_path(picture) else f"{what}[{number}]", picture)
        for number, picture in enumerate(pictures)
    ]


def in_form_of(pictures: Any, results: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Returns results in the form of the pictures: one array, a list, or a batch."""
    if not are_several(pictures):
        return results[0]
    return np.stack(results) if _is_batch(pictures) else results


def take_picture(picture: Any, format: RoleFormat, *, name: str, value_range: ValueRange | None) -> Picture:
    """Makes of a picture what the networks of a run take, as if it came from a file.

    Args:
      picture: a path; a Pillow image; or an array or tensor [H, W] or [H, W, C].
      format: how the networks take it.
      name: of the picture in errors, unless it has a path.
      value_range: the values of an array that are black and white. None is what integers mean: 0 and 255 for
        uint8; 0 and 65535 for uint16, or the value range of the data set if that has another one. Floats have
        no such meaning.

    Raises:
      ConfigurationError: nothing says what the values of the array mean, or they are outside `value_range`.
      DataError: the picture cannot be read, or the networks cannot take it.
    """
    if not is_array(picture):
        if value_range is not None:
            raise ConfigurationError(
                f"value_range = {value_range}: goes with arrays, but {name} is a file or a Pillow image, "
                "whose values have a meaning already; leave it out"
            )
        if _is_path(picture):
            return format.read(os.path.expanduser(os.fspath(picture)), keeps_alpha=True)
        return _as_picture(name, *pillow_images.from_image(picture, name), format, format.stored)
    pixels = _pixels(picture, name)
    if pixels.shape[-1] not in (1, 2, 3, 4, format.channels) and pixels.shape[0] == format.channels:
        raise ConfigurationError(
            f"{name}: has the shape {list(pixels.shape)}, but channels come last; transpose it to [H, W, C]"
        )
    if value_range is None and pixels.dtype.name not in _INTEGERS:
        raise ConfigurationError(_unknown_values(name, pixels.dtype.name, format.stored))
    stored = format.stored
    if value_range is not None:
        low, high = check_range(value_range)
        pixels = _signed(pixels, low, high, name=name, is_limit=stored is None or stored.dtype != "float32")
        alpha = stored is not None and stored.alpha
        signed = ImageFormat(channels=format.channels, dtype="float32", value_range=_SIGNED, alpha=alpha)
        found = _as_picture(name, *_described(pixels, stored), format, signed)
        # Transparency of float files is from 0 to 1, but here it was mapped with the colours.
        return found if found.alpha is None else dataclasses.replace(found, alpha=(found.alpha + 1) / 2)
    return _as_picture(name, *_described(pixels, stored), format, stored)


def check_range(value_range: ValueRange) -> ValueRange:
    """The values of black and white as floats.

    Raises:
      ConfigurationError: they are not two numbers in order.
    """
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not low < high or not np.isfinite(high - low):
        raise ConfigurationError(
            f"value_range = {value_range!r}: must be the values of black and white, such as (0, 1) or (-1, 1)"
        )
    return low, high


def _pixels(picture: Any, name: str) -> np.ndarray:
    """An array or tensor as [H, W, C]."""
    if isinstance(picture, tf.Tensor) and picture.dtype == tf.bfloat16:
        picture = tf.cast(picture, tf.float32)
    try:
        pixels = np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"{name}: is no picture ({reason}); give a path, a Pillow image, or an array [H, W, C]"
        ) from error
    if pixels.dtype.name not in (*_INTEGERS, *_FLOATS) and pixels.dtype.kind not in "iub":
        raise ConfigurationError(
            f"{name}: is no picture but {type(picture).__name__}; give a path, a Pillow image, or an array "
            "[H, W, C]"
        )
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]  # [H, W, 1]
    if pixels.ndim != 3 or not pixels.size:
        raise ConfigurationError(
            f"{name}: has the shape {list(np.shape(picture))}; give [H, W, C], [H, W] for grey, or "
            "[B, H, W, C] for several pictures at once"
        )
    return pixels


def _unknown_values(name: str, dtype: str, stored: ImageFormat | None) -> str:
    """The error about an array whose dtype does not say what its values mean."""
    if dtype not in _FLOATS:
        return (
            f"{name}: is an array of {dtype}, which does not say what its values mean; convert it to uint8 "
            "(0 to 255) or uint16, or give value_range=(LOW, HIGH)"
        )
    known = "(0, 1) or (-1, 1)"
    if stored is not None and stored.dtype == "float32":
        low, high = stored.value_range
        known += f", or ({low:g}, {high:g}) if they are values as in the run's data set"
    return (
        f"{name}: is an array of {dtype}, which does not say which values are black and white; give "
        f"value_range={known}"
    )


def _has_alpha(channels: int, stored: ImageFormat | None) -> bool:
    """Whether the last of 2 or 4 channels is transparency: not where the data set has as many without any."""
    is_data = stored is not None and stored.channels == channels and not stored.alpha
    return channels in (2, 4) and not is_data


def _described(pixels: np.ndarray, stored: ImageFormat | None) -> tuple[ImageInfo, np.ndarray]:
    """What pixels [H, W, C] are, and they without an alpha channel that is opaque, as files are read."""
    if _has_alpha(pixels.shape[-1], stored) and is_opaque(pixels):
        pixels = pixels[..., :-1]
    height, width, channels = pixels.shape
    info = ImageInfo(
        height=height,
        width=width,
        channels=channels,
        alpha=_has_alpha(channels, stored),
        dtype=pixels.dtype.name,
        value_range=(0, np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else None,
    )
    return info, pixels


def _signed(pixels: np.ndarray, low: float, high: float, *, name: str, is_limit: bool) -> np.ndarray:
    """Maps [low, high] to [-1, 1], float32."""
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise DataError(f"{name}: has values that are not finite (NaN or infinity); mend it")
    slack = _ROUNDING * (high - low)
    if is_limit and (pixels.min() < low - slack or pixels.max() > high + slack):
        raise ConfigurationError(
            f"{name}: has values from {pixels.min():g} to {pixels.max():g}, outside value_range = ({low:g}, "
            f"{high:g}); give their range, or clip them"
        )
    signed = imaging.range_to_signed(pixels, low=low, high=high).numpy()
    return np.clip(signed, *_SIGNED) if is_limit else signed


def _as_picture(
    name: str, info: ImageInfo, pixels: np.ndarray, format: RoleFormat, stored: ImageFormat | None
) -> Picture:
    return as_picture(
        name,
        info,
        pixels,
        channels=format.channels,
        trained=stored,
        classes=format.classes,
        keeps_alpha=True,
    )
