"""Picture files as people have them: what is read, what is refused, which bytes are stored."""

import contextlib
import dataclasses
import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from data.decoding import decode_image
from data.errors import DataError

_READ_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")
_KEPT_FORMATS = ("JPEG", "MPO", "PNG")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_PNG_BIT_DEPTH_BYTE = 24
_SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
_EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureHeader:
    """What a picture is, upright: height and width in pixels, channels (1 grey, 3 colour)."""

    height: int
    width: int
    channels: int


def read_header(path):
    """Reads a picture's header without decoding it.

    Raises:
        DataError: the file cannot be read, or is not an 8-bit JPEG, PNG, BMP, GIF or WebP.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS_ORIENTATIONS:
            width, height = height, width
        channels = 1 if image.mode in _GREY_MODES else 3
        return PictureHeader(height=height, width=width, channels=channels)


def encode(path, *, channels):
    """Gives the bytes to store for a picture, having decoded it completely.

    They are the file's own if `data.decoding` makes of them the pixels a viewer shows (the first
    frame, upright, palette and CMYK turned into RGB), and those pixels as PNG if not.

    Args:
        path: the file.
        channels: 1 or 3, with which the data set is decoded; 3 also takes a grey picture.

    Returns:
        (bytes, True if they are the file's own).

    Raises:
        DataError: as `read_header`, and for a damaged file or one that is really transparent.
    """
    with _opened(path) as image:
        kept_format = image.format in _KEPT_FORMATS
        image = ImageOps.exif_transpose(image)
        if "A" in image.mode or "transparency" in image.info:
            image = image.convert("LA" if image.mode in _GREY_MODES else "RGBA")
            if image.getchannel("A").getextrema()[0] < 255:
                raise DataError(f"{path}: has transparent parts; flatten it onto a background.")
        image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    stored = path.read_bytes()
    if kept_format and _decodes_to(stored, pixels):
        return stored, True
    return encode_png(pixels), False


def encode_png(pixels):
    """Encodes uint8 [H, W, 1 or 3] as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _decodes_to(stored, pixels):
    """Whether the training pipeline's decoder makes exactly these pixels of the bytes."""
    try:
        decoded = decode_image(stored, channels=pixels.shape[-1]).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    return np.array_equal(decoded, pixels)


@contextlib.contextmanager
def _opened(path):
    """Opens a picture and names the file in whatever goes wrong with it."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: not a file that can be read; remove or replace it.")
        with Image.open(path) as image:
            _check_kind(path, image)
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that can be read; remove or replace it.") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable.") from error
    except Exception as error:  # Pillow's decoders raise every kind on damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: damaged image ({reason}); remove or replace it.") from error


def _check_kind(path, image):
    """Refuses what cannot be turned into 8-bit grey or RGB without loss."""
    if image.format not in _READ_FORMATS:
        raise DataError(f"{path}: {image.format} images are not read; convert it to 8-bit PNG.")
    deep = image.mode not in _GREY_MODES + _COLOUR_MODES
    if image.format == "PNG":
        # Pillow quietly drops the low bytes of 16-bit colour, so that its mode does not tell.
        with path.open("rb") as file:
            deep |= file.read(_PNG_BIT_DEPTH_BYTE + 1)[_PNG_BIT_DEPTH_BYTE] > 8
    if deep:
        raise DataError(f"{path}: has more than 8 bits a channel; convert it to 8-bit PNG.")
