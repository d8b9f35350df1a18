"""Pictures as people have them: what a file holds, upright, and its pixels."""

import contextlib
import dataclasses
import io
import os
import typing

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data import video as raw_video
from data.errors import DataError

MAX_PIXELS = 178_956_970
"""The default limit of pixels of one picture, Pillow's limit against decompression bombs."""

_READ_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
_EXIF_ORIENTATION = 0x0112


class ImageRef(typing.NamedTuple):
    """Where a picture is: a file, and the number of the frame if it is a raw video."""

    path: str
    frame: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageKind:
    """What a picture is, upright.

    Attributes:
        height, width: in pixels.
        channels: 1 grey, 3 colour; 2 and 4 the same with transparency if `alpha`, else data.
        alpha: whether the last channel is transparency.
        dtype: "uint8", "uint16" or "float32".
        value_range: lowest and highest possible value; None if the header does not tell (float32).
    """

    height: int
    width: int
    channels: int
    alpha: bool = False
    dtype: str = "uint8"
    value_range: tuple[float, float] | None = (0, 255)


def is_image_name(path):
    """Whether the name is that of a picture or raw video, also of one that is not read."""
    Image.init()
    path = os.fspath(path)
    return os.path.splitext(path)[1].lower() in Image.EXTENSION or raw_video.is_video_name(path)


def number_of_frames(path, video):
    """Gives the number of pictures in a file: 1 unless it is a raw video."""
    return raw_video.number_of_frames(path, video) if raw_video.is_video_name(path) else 1


def read_kind(ref, *, video, max_pixels):
    """Reads what a picture is from its header; an alpha channel is decoded to see whether it is used.

    Raises:
        DataError: the picture cannot be read, or has more than `max_pixels`.
    """
    with _named_errors(ref.path), _opened(ref.path, max_pixels) as image:
        if "A" in image.mode or "transparency" in image.info:
            return _kind_of(_upright_pixels(image))
        width, height = image.size
        if image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS_ORIENTATIONS:
            width, height = height, width
        return ImageKind(height=height, width=width, channels=1 if image.mode in _GREY_MODES else 3)


def read_pixels(ref, *, video, max_pixels):
    """Reads a picture: [H, W, C] as `read_kind` says.

    Raises:
        DataError: as `read_kind`, and for a damaged file.
    """
    return decode(ref, video=video, max_pixels=max_pixels)[1]


def decode(ref, *, video, max_pixels):
    """Reads a file once: gives (ImageKind, pixels [H, W, C], bytes of the file or None).

    The bytes are given of a format that TensorFlow may decode itself.
    """
    with _named_errors(ref.path):
        with open(ref.path, "rb") as file:
            contents = file.read()
        with _opened(io.BytesIO(contents), max_pixels, path=ref.path) as image:
            keep = image.format in ("JPEG", "MPO", "PNG")
            pixels = _upright_pixels(image)
        return _kind_of(pixels), pixels, contents if keep else None


def _kind_of(pixels):
    height, width, channels = pixels.shape
    return ImageKind(height=height, width=width, channels=channels, alpha=channels in (2, 4))


def _upright_pixels(image):
    """uint8 [H, W, 1 to 4] of an open Pillow image; opaque alpha is dropped."""
    image = ImageOps.exif_transpose(image)
    grey = image.mode in _GREY_MODES
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("LA" if grey else "RGBA")
        if image.getchannel("A").getextrema()[0] == 255:
            image = image.convert("L" if grey else "RGB")
    else:
        image = image.convert("L" if grey else "RGB")
    return np.asarray(image).reshape(image.height, image.width, -1)


@contextlib.contextmanager
def _opened(file, max_pixels, path=None):
    path = path or file
    with Image.open(file) as image:
        if image.format not in _READ_FORMATS:
            raise DataError(f"{path}: {image.format} images are not read; convert it to PNG.")
        if image.mode not in _GREY_MODES + _COLOUR_MODES:
            raise DataError(f"{path}: has more than 8 bits a channel; convert it to 8-bit PNG.")
        if image.width * image.height > max_pixels:
            raise DataError(f"{path}: is {image.width}x{image.height}; raise max_pixels or shrink it.")
        yield image


@contextlib.contextmanager
def _named_errors(path):
    """Names the file in whatever goes wrong with it."""
    try:
        if not os.path.isfile(path):
            raise DataError(f"{path}: not a file that can be read; remove or replace it.")
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that can be read; remove or replace it.") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable.") from error
    except Exception as error:  # Pillow's decoders raise every kind on damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: damaged image ({reason}); remove or replace it.") from error
