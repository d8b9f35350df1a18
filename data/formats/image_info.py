"""Where an image is stored, and its size, channels and dtype."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np

from data.errors import DataError

MAX_PIXELS = 178_956_970
"""The default limit of pixels per image: Pillow's, against decompression bombs."""

SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that exchange height and width."""


class ImageRef(typing.NamedTuple):
    """Where an image is stored.

    Attributes:
      path: of its file.
      frame: number of the frame, counted from 0, in a raw video; 0 in other files.
    """

    path: str
    frame: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """Size, channels and values of an image that is turned upright.

    Attributes:
      height: in pixels.
      width: in pixels.
      channels: 1 grey, 3 colour; 2 and 4 are the same with transparency if `alpha` is set. Other numbers
        of channels are plain data.
      alpha: whether the last channel is transparency, straight (not premultiplied).
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest possible value; None if the header does not give it (float32).
    """

    height: int
    width: int
    channels: int
    alpha: bool = False
    dtype: str = "uint8"
    value_range: tuple[float, float] | None = (0, 255)


def check_pixels(path: str, *, height: int, width: int, max_pixels: int, channels: int = 1) -> None:
    """Checks the size that the header of an image gives.

    Args:
      path: named in errors.
      height: in pixels.
      width: in pixels.
      max_pixels: the limit of height * width. Every further four channels count as another image, so that
        channels cannot fill the memory either.
      channels: of the image.

    Raises:
      DataError: the image has no pixels, or more than `max_pixels`.
    """
    if height < 1 or width < 1:
        raise DataError(f"{path}: has no pixels ({width}x{height}); remove or replace it")
    pixels = height * width * -(-channels // 4)
    if pixels > max_pixels:
        size = f"{width}x{height}" + (f" with {channels} channels" if channels > 4 else "")
        raise DataError(
            f"{path}: is {size}, {pixels} pixels, and the limit is {max_pixels}; make it smaller, or raise "
            "max_pixels if you trust the file"
        )


def is_opaque(pixels: np.ndarray) -> bool:
    """Whether the last channel of [H, W, C], an alpha channel, is opaque everywhere."""
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    return bool((pixels[..., -1] == opaque).all())


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns [H, W, C] by its orientation (Exif 3.0, tag 274: 1 to 8); other values change nothing."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
