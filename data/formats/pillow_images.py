"""JPEG, PNG, BMP, GIF and WebP files: what their headers say, and their pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from data.errors import DataError
from data.formats import png
from data.formats.image_info import MAX_PIXELS, SIDEWAYS, ImageInfo, check_pixels, is_opaque, upright

_JPEG_FORMATS = ("JPEG", "MPO")
_SUPPORTED_FORMATS = (*_JPEG_FORMATS, "PNG", "BMP", "GIF", "WEBP")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_EXIF_ORIENTATION = 0x0112

# `check_pixels` applies our limit. Pillow's would warn, or reject an image that the caller allowed.
Image.MAX_IMAGE_PIXELS = None


def read_info(file: BinaryIO, path: str, *, max_pixels: int) -> ImageInfo:
    """Reads the header of an image. Only an alpha channel is decoded, to see whether it is used.

    Args:
      file: open binary file, at its start.
      path: named in errors.
      max_pixels: images with more pixels raise an error before they are decoded.

    Returns:
      Its `ImageInfo`.

    Raises:
      DataError: the format or its pixel mode is not supported, or the image has too many pixels.
      Exception: any that Pillow raises on a damaged file.
    """
    with _open(file, path, max_pixels) as (image, header):
        if _has_alpha(image, header):
            return _info(_upright_pixels(image, header, file))
        width, height = image.size
        if _orientation(image, header) in SIDEWAYS:
            width, height = height, width
        if header is not None and header.bits == 16:
            return ImageInfo(
                height=height, width=width, channels=header.channels, dtype="uint16", value_range=(0, 65535)
            )
        return ImageInfo(height=height, width=width, channels=1 if image.mode in _GREY_MODES else 3)


def decode(file: BinaryIO, path: str, *, max_pixels: int) -> tuple[ImageInfo, np.ndarray, str | None]:
    """Decodes an image: upright, the first frame of an animation, palettes and CMYK as RGB.

    Args:
      file: open binary file, at its start.
      path: named in errors.
      max_pixels: as of `read_info`.

    Returns:
      (`ImageInfo`, pixels [H, W, C], "jpeg", "png" or None for other formats).

    Raises:
      As `read_info`.
    """
    with _open(file, path, max_pixels) as (image, header):
        pixels = _upright_pixels(image, header, file)
        encoding = "jpeg" if image.format in _JPEG_FORMATS else "png" if header else None
        return _info(pixels), pixels, encoding


def from_image(image: Image.Image, name: str) -> tuple[ImageInfo, np.ndarray]:
    """Takes the pixels of an image that Pillow has in memory, in the way of `decode`.

    Args:
      image: of 8 bits, or grey of 16 bits (mode "I;16"). Pillow itself makes 8 bits of colour with 16.
      name: in errors.

    Returns:
      (`ImageInfo`, pixels [H, W, C]).

    Raises:
      DataError: its pixel mode is not supported, or it has no pixels.
    """
    if image.mode == "I;16":
        pixels = np.asarray(image)[..., np.newaxis].astype(np.uint16)  # [H, W, 1]
        pixels = upright(pixels, _orientation(image, None))
    elif image.mode in (*_GREY_MODES, *_COLOUR_MODES):
        check_pixels(name, height=image.height, width=image.width, max_pixels=MAX_PIXELS)
        pixels = _upright_pixels(image, None, None)
    else:
        raise DataError(
            f"{name}: Pillow images of mode {image.mode} are not supported; convert it to 'RGB' or 'L', or "
            "give a NumPy array"
        )
    return _info(pixels), pixels


def check_header(file: BinaryIO, path: str, *, max_pixels: int) -> None:
    """Reads only the header; raises the errors that `read_info` raises about it."""
    with _open(file, path, max_pixels):
        pass


@contextlib.contextmanager
def _open(file: BinaryIO, path: str, max_pixels: int) -> Iterator[tuple[Image.Image, png.PngHeader | None]]:
    """Yields (Pillow's image, `PngHeader` or None) of an image that is supported and not too large."""
    with Image.open(file) as image:
        if image.format not in _SUPPORTED_FORMATS:
            raise DataError(f"{path}: {image.format} images are not supported; convert it to PNG or TIFF")
        if image.mode not in (*_GREY_MODES, *_COLOUR_MODES, "I;16"):
            raise DataError(
                f"{path}: {image.format} pixels of mode {image.mode} are not supported; convert it to PNG"
            )
        check_pixels(path, height=image.height, width=image.width, max_pixels=max_pixels)
        header = None
        if image.format == "PNG":
            position = file.tell()
            header = png.read_header(file)
            file.seek(position)
        yield image, header


def _has_alpha(image: Image.Image, header: png.PngHeader | None) -> bool:
    has_key = header is not None and header.transparent is not None
    return "A" in image.mode or "transparency" in image.info or has_key


def _orientation(image: Image.Image, header: png.PngHeader | None) -> int:
    """The orientation in the metadata; 1 if there is none."""
    if header is not None and not header.late_metadata:
        # A PNG's own `getexif` decodes the whole image to find metadata behind the pixels.
        return Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _upright_pixels(image: Image.Image, header: png.PngHeader | None, file: BinaryIO | None) -> np.ndarray:
    """uint8 or uint16 [H, W, 1 to 4]; an alpha channel that is opaque everywhere is dropped."""
    orientation = _orientation(image, header)  # first, as it may read on in the file
    if header is not None and file is not None:
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


def _info(pixels: np.ndarray) -> ImageInfo:
    height, width, channels = pixels.shape
    return ImageInfo(
        height=height,
        width=width,
        channels=channels,
        alpha=channels in (2, 4),
        dtype=pixels.dtype.name,
        value_range=(0, np.iinfo(pixels.dtype).max),
    )
