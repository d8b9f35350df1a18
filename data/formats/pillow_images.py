"""JPEG, PNG, BMP, GIF and WebP files: what they hold, and their pixels."""

import contextlib

import numpy as np
from PIL import Image

from data.errors import DataError
from data.formats import png
from data.formats.image_info import SIDEWAYS, ImageInfo, check_pixels, is_opaque, upright

_JPEG_FORMATS = ("JPEG", "MPO")
_READ_FORMATS = (*_JPEG_FORMATS, "PNG", "BMP", "GIF", "WEBP")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_EXIF_ORIENTATION = 0x0112

# Ours is the limit: Pillow's would warn, or refuse what a caller allowed.
Image.MAX_IMAGE_PIXELS = None


def read_info(file, path, *, max_pixels):
    """Reads what a picture is from its header; only an alpha channel is decoded, to see whether it is used.

    Args:
      file: open binary file, at its start.
      path: named in errors.
      max_pixels: more are refused before anything is decoded.

    Returns:
      `ImageInfo`.

    Raises:
      DataError: a format or kind of pixels that is not read, or too many pixels.
      Exception: whatever Pillow raises on a damaged file.
    """
    with _opened(file, path, max_pixels) as (image, header):
        if _has_alpha(image, header):
            return _kind(_upright_pixels(image, header, file))
        width, height = image.size
        if _orientation(image, header) in SIDEWAYS:
            width, height = height, width
        deep = header is not None and header.bits == 16
        return ImageInfo(
            height=height,
            width=width,
            channels=header.channels if deep else 1 if image.mode in _GREY_MODES else 3,
            dtype="uint16" if deep else "uint8",
            value_range=(0, 65535) if deep else (0, 255),
        )


def decode(file, path, *, max_pixels):
    """Decodes a picture: of an animation the first frame, palettes and CMYK as colour, upright.

    Args:
      file, path, max_pixels: as of `read_info`.

    Returns:
      (`ImageInfo`, pixels [H, W, C], whether it is a "jpeg", a "png" or None of these).

    Raises:
      As `read_info`.
    """
    with _opened(file, path, max_pixels) as (image, header):
        pixels = _upright_pixels(image, header, file)
        encoding = "jpeg" if image.format in _JPEG_FORMATS else "png" if header else None
        return _kind(pixels), pixels, encoding


def check_header(file, path, *, max_pixels):
    """Reads no more than the header; raises what `read_info` raises of it."""
    with _opened(file, path, max_pixels):
        pass


@contextlib.contextmanager
def _opened(file, path, max_pixels):
    """Gives (Pillow's image, `PngHeader` or None) of a picture that may be decoded."""
    with Image.open(file) as image:
        if image.format not in _READ_FORMATS:
            raise DataError(f"{path}: {image.format} images are not read; convert it to PNG or TIFF")
        if image.mode not in _GREY_MODES + _COLOUR_MODES + ("I;16",):
            raise DataError(
                f"{path}: {image.format} pixels of mode {image.mode} are not read; convert it to PNG"
            )
        check_pixels(path, height=image.height, width=image.width, max_pixels=max_pixels)
        header = None
        if image.format == "PNG":
            position = file.tell()
            header = png.read_header(file)
            file.seek(position)
        yield image, header


def _has_alpha(image, header):
    return "A" in image.mode or "transparency" in image.info or (header and header.transparent is not None)


def _orientation(image, header):
    """The orientation of the metadata; 1 if it says nothing."""
    if header is not None and not header.late_metadata:
        # Pillow would decode a whole PNG in search of metadata behind the pixels.
        return Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _upright_pixels(image, header, file):
    """uint8 or uint16 [H, W, 1 to 4]; opaque alpha is dropped."""
    orientation = _orientation(image, header)  # first: it may read on in the file
    if header is not None:
        file.seek(0)
        pixels = png.decode(file.read(), header)
    else:
        mode = "L" if image.mode in _GREY_MODES else "RGB"
        if _has_alpha(image, header):
            mode = {"L": "LA", "RGB": "RGBA"}[mode]
        pixels = np.asarray(image.convert(mode)).reshape(image.height, image.width, -1)
    if pixels.shape[-1] in (2, 4) and is_opaque(pixels):
        pixels = pixels[..., :-1]
    return upright(pixels, orientation)


def _kind(pixels):
    height, width, channels = pixels.shape
    return ImageInfo(
        height=height,
        width=width,
        channels=channels,
        alpha=channels in (2, 4),
        dtype=pixels.dtype.name,
        value_range=(0, np.iinfo(pixels.dtype).max),
    )
