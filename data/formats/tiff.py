"""TIFF files with one page: 1, 8 or 16-bit integers or 32-bit floats, with any number of channels.

Tags and their values: TIFF, revision 6.0 (Adobe, 1992).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import tifffile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from data.errors import DataError
from data.formats.image_info import SIDEWAYS, ImageInfo, check_pixels, is_opaque, upright

_BASE_CHANNELS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.YCBCR: 3,
}
_STORED_DTYPES = {
    "bool": "uint8",
    "uint8": "uint8",
    "uint16": "uint16",
    "float16": "float32",
    "float32": "float32",
}
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)

# On a damaged file tifffile would log several lines before the error is raised.
tifffile.logger().setLevel(logging.CRITICAL)


def is_tiff(head: bytes) -> bool:
    """Whether the first four bytes of a file are those of a TIFF or BigTIFF."""
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_info(file: BinaryIO, path: str, *, max_pixels: int) -> ImageInfo:
    """Reads the header of an image. Only an alpha channel is decoded, to see whether it is used.

    Args:
      file: open binary file, at its start.
      path: named in errors.
      max_pixels: images with more pixels raise an error before they are decoded.

    Returns:
      Its `ImageInfo`.

    Raises:
      DataError: the file has several pages, unsupported pixels or too many, or is truncated.
      Exception: any that tifffile raises on a damaged file.
    """
    with _open(file, path, max_pixels) as page:
        if _has_alpha(page):
            return _info(page, _upright_pixels(page, path))
        height, width = page.imagelength, page.imagewidth
        if _orientation(page) in SIDEWAYS:
            height, width = width, height
        channels, dtype = page.samplesperpixel, _STORED_DTYPES[page.dtype.name]
        if page.photometric == PHOTOMETRIC.PALETTE:
            channels, dtype = 3, _colours(page).dtype.name
        return ImageInfo(
            height=height, width=width, channels=channels, dtype=dtype, value_range=_value_range(dtype)
        )


def decode(file: BinaryIO, path: str, *, max_pixels: int) -> tuple[ImageInfo, np.ndarray]:
    """Decodes an image: upright, palettes as RGB, black as 0.

    Args:
      file: open binary file, at its start.
      path: named in errors.
      max_pixels: as of `read_info`.

    Returns:
      (`ImageInfo`, pixels [H, W, C]).

    Raises:
      As `read_info`.
    """
    with _open(file, path, max_pixels) as page:
        pixels = _upright_pixels(page, path)
        return _info(page, pixels), pixels


@contextlib.contextmanager
def _open(file: BinaryIO, path: str, max_pixels: int) -> Iterator[tifffile.TiffPage]:
    """Yields the only page of a file, checked to be supported, complete and not too large."""
    with tifffile.TiffFile(file) as tiff:
        _check_pages(tiff, path)
        page = tiff.pages[0]
        check_pixels(
            path,
            height=page.imagelength,
            width=page.imagewidth,
            channels=page.samplesperpixel,
            max_pixels=max_pixels,
        )
        _check_samples(page, path)
        _check_complete(page, tiff.filehandle.size, path)
        yield page


def _check_pages(tiff: tifffile.TiffFile, path: str) -> None:
    """Checks that a file holds one image."""
    images = sum(not page.is_reduced for page in tiff.pages)
    # ImageJ and tifffile write one directory for several images that are stored one after the other.
    images = max(images, (tiff.imagej_metadata or {}).get("images", 1))
    for series in tiff.shaped_metadata or ():
        images = max(images, math.prod(series["shape"]) // max(tiff.pages[0].size, 1))
    if images > 1:
        raise DataError(
            f"{path}: holds {images} pages; save each in its own file or, if they are the channels of one "
            "image, as the samples of one page"
        )
    if tiff.pages[0].is_reduced:
        raise DataError(f"{path}: its first page is a thumbnail; save the image alone")


def _check_samples(page: tifffile.TiffPage, path: str) -> None:
    """Checks that the pixels are of a kind that can be read without loss."""
    dtype = page.dtype.name if page.dtype is not None else f"{page.bitspersample}-bit"
    whole_bits = page.dtype is not None and page.bitspersample == (
        1 if dtype == "bool" else page.dtype.itemsize * 8
    )
    if dtype not in _STORED_DTYPES or not whole_bits:
        kind = f"{dtype} in {page.bitspersample} bits" if not whole_bits else dtype
        raise DataError(f"{path}: holds {kind} values; convert it to uint8, uint16 or float32")
    if page.axes not in ("YX", "YXS", "SYX"):
        raise DataError(f"{path}: has the axes {page.axes}, not those of one image; save one as YX or YXS")
    base = _BASE_CHANNELS.get(page.photometric)
    converted = page.photometric in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE)
    coded_as_rgb = page.photometric != PHOTOMETRIC.YCBCR or page.compression == COMPRESSION.JPEG
    if base is None or not coded_as_rgb or (converted and dtype.startswith("float")):
        name = getattr(page.photometric, "name", page.photometric)
        raise DataError(
            f"{path}: {name} colours of {dtype} values are not supported; convert it to grey or RGB"
        )
    if page.photometric == PHOTOMETRIC.PALETTE and (dtype != "uint8" or page.samplesperpixel != 1):
        raise DataError(f"{path}: a palette needs 8 bits per pixel; convert it to RGB")


def _check_complete(page: tifffile.TiffPage, file_bytes: int, path: str) -> None:
    """Checks that a file is not truncated: tifffile would fill in the missing pixels."""
    starts, lengths, expected = page.dataoffsets, page.databytecounts, math.prod(page.chunked)
    if page.is_contiguous:
        starts, lengths, expected = starts[:1], (page.nbytes,), 1
    complete = 0 < expected == len(starts) == len(lengths) and all(starts) and all(lengths)
    if not complete or max(map(sum, zip(starts, lengths, strict=True))) > file_bytes:
        raise DataError(f"{path}: damaged image (pixels are missing at its end); remove or replace it")


def _has_alpha(page: tifffile.TiffPage) -> bool:
    """Whether the last sample is transparency; extra samples of other kinds are plain data."""
    base = _BASE_CHANNELS[page.photometric]
    return page.samplesperpixel == base + 1 and len(page.extrasamples) == 1 and page.extrasamples[0] in _ALPHA


def _orientation(page: tifffile.TiffPage) -> int:
    return page.tags.valueof(274, default=1)


def _colours(page: tifffile.TiffPage) -> np.ndarray:
    """[256, 3] of a palette: uint8 if 8 bits hold all its values, else uint16."""
    colours = np.asarray(page.colormap).T
    if not (colours % 257).any() or not (colours % 256).any():
        return (colours // 256).astype(np.uint8)
    return colours.astype(np.uint16)


def _upright_pixels(page: tifffile.TiffPage, path: str) -> np.ndarray:
    """uint8, uint16 or float32 [H, W, C]; an alpha channel that is opaque everywhere is dropped."""
    pixels = page.asarray(maxworkers=1)  # the caller reads several images in threads
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
    if page.photometric == PHOTOMETRIC.PALETTE:
        pixels = _colours(page)[pixels[..., 0]]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        pixels = pixels.copy()
        pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
    pixels = pixels.astype(_STORED_DTYPES[pixels.dtype.name], copy=False)
    if _has_alpha(page):
        if is_opaque(pixels):
            pixels = pixels[..., :-1]
        elif page.extrasamples[0] == EXTRASAMPLE.ASSOCALPHA:
            raise DataError(
                f"{path}: its colours are multiplied by their transparency; save it with straight "
                "(unassociated) alpha, or flatten it onto a background"
            )
    return upright(pixels, _orientation(page))


def _info(page: tifffile.TiffPage, pixels: np.ndarray) -> ImageInfo:
    height, width, channels = pixels.shape
    return ImageInfo(
        height=height,
        width=width,
        channels=channels,
        alpha=_has_alpha(page) and channels > _BASE_CHANNELS[page.photometric],
        dtype=pixels.dtype.name,
        value_range=_value_range(pixels.dtype.name),
    )


def _value_range(dtype: str) -> tuple[float, float] | None:
    return None if dtype == "float32" else (0, int(np.iinfo(dtype).max))
