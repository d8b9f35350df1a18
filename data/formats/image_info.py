"""Where a picture is, and what it is."""

import dataclasses
import typing

import numpy as np

from data.errors import DataError

MAX_PIXELS = 178_956_970
"""The default limit of pixels of one picture: Pillow's, against decompression bombs."""

SIDEWAYS = (5, 6, 7, 8)
"""The EXIF orientations that exchange height and width."""


class ImageRef(typing.NamedTuple):
    """Where a picture is: a file, and the number of the frame if it is a raw video."""

    path: str
    frame: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What a picture is, upright.

    Attributes:
      height, width: in pixels.
      channels: 1 grey, 3 colour, 2 and 4 the same and transparency if `alpha`; otherwise just data.
      alpha: whether the last channel is transparency, straight (not premultiplied).
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest value there can be; None if the header does not tell (float32).
    """

    height: int
    width: int
    channels: int
    alpha: bool = False
    dtype: str = "uint8"
    value_range: tuple[float, float] | None = (0, 255)


def check_pixels(path, *, height, width, max_pixels, channels=1):
    """Refuses a picture that its header says has no pixels or more than `max_pixels`.

    Channels beyond four count as further pictures of four, so that they cannot fill the memory either.
    """
    if height < 1 or width < 1:
        raise DataError(f"{path}: is {width}x{height} pixels, so holds no picture; remove or replace it")
    pixels = height * width * -(-channels // 4)
    if pixels > max_pixels:
        size = f"{width}x{height}" + (f" of {channels} channels" if channels > 4 else "")
        raise DataError(
            f"{path}: is {size}, {pixels} pixels, and the limit is {max_pixels}; make it smaller, or raise "
            "max_pixels if the file is to be trusted"
        )


def is_opaque(pixels):
    """Whether the last channel of [H, W, C], transparency, is nowhere transparent."""
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    return bool((pixels[..., -1] == opaque).all())


def upright(pixels, orientation):
    """Turns [H, W, C] as its orientation says (Exif 3.0, tag 274: 1 to 8); others change nothing."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
