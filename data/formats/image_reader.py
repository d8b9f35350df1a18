"""Reads image files and raw videos: what their headers say, and their pixels."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from data import gfile
from data.errors import DataError
from data.formats import pillow_images, raw_video, tiff
from data.formats.image_info import MAX_PIXELS, ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat

__all__ = [
    "MAX_PIXELS",
    "ImageInfo",
    "ImageRef",
    "decode",
    "is_image_name",
    "number_of_frames",
    "read_info",
    "read_pixels",
]

# Formats that Pillow does not know. They count as images, so that the report names such a file as
# unsupported instead of ignoring it.
_OTHER_EXTENSIONS = frozenset(
    ".arw .cr2 .cr3 .dng .exr .heic .heif .jxl .nef .orf .raf .rw2 "
    ".avi .m4v .mkv .mov .mp4 .webm .wmv .264 .265 .h264 .h265".split()
)

_LONGEST_REASON = 120  # characters of a decoder's message


def is_image_name(path: str) -> bool:
    """Whether a file name is that of an image or video, supported or not."""
    Image.init()
    extension = os.path.splitext(path)[1].lower()
    return extension in Image.EXTENSION or extension in _OTHER_EXTENSIONS or raw_video.is_video_name(path)


def number_of_frames(path: str, video: VideoFormat) -> int:
    """Returns the number of images in a file: 1 unless it is a raw video.

    Args:
      path: of the file.
      video: how raw video is read.

    Raises:
      DataError: it is a raw video and does not have the given format.
    """
    if not raw_video.is_video_name(path):
        return 1
    with _read_errors(path):
        return raw_video.number_of_frames(path, video)


def read_info(ref: ImageRef, *, video: VideoFormat, max_pixels: int) -> ImageInfo:
    """Reads the header of an image. Only an alpha channel is decoded, to see whether it is used.

    Args:
      ref: the image.
      video: how raw video is read.
      max_pixels: images with more pixels raise an error.

    Returns:
      Its `ImageInfo`.

    Raises:
      DataError: the file cannot be read, its format is not supported, or it is too large.
    """
    with _read_errors(ref.path):
        if raw_video.is_video_name(ref.path):
            return raw_video.read_info(ref, video, max_pixels=max_pixels)
        with _open(ref) as (file, reader):
            return reader.read_info(file, ref.path, max_pixels=max_pixels)


def read_pixels(ref: ImageRef, *, video: VideoFormat, max_pixels: int) -> np.ndarray:
    """Reads the pixels of an image, [H, W, C]; arguments and errors as of `read_info`."""
    return decode(ref, video=video, max_pixels=max_pixels)[1]


def decode(
    ref: ImageRef, *, video: VideoFormat, max_pixels: int
) -> tuple[ImageInfo, np.ndarray, dict[str, bytes]]:
    """Decodes an image completely; arguments and errors as of `read_info`.

    Returns:
      (`ImageInfo`, pixels [H, W, C], {"jpeg" or "png": the bytes of the file}, empty for other formats).
    """
    with _read_errors(ref.path):
        if raw_video.is_video_name(ref.path):
            return *raw_video.decode(ref, video, max_pixels=max_pixels), {}
        with _open(ref) as (file, reader):
            if reader is tiff:
                return *tiff.decode(file, ref.path, max_pixels=max_pixels), {}
            # Before the whole file is read: it may be as large as an image with too many pixels.
            pillow_images.check_header(file, ref.path, max_pixels=max_pixels)
            file.seek(0)
            contents = file.read()
        info, pixels, encoding = pillow_images.decode(io.BytesIO(contents), ref.path, max_pixels=max_pixels)
        return info, pixels, {encoding: contents} if encoding else {}


@contextlib.contextmanager
def _open(ref: ImageRef) -> Iterator[tuple[BinaryIO, ModuleType]]:
    """Yields (open file, the module that reads its format) of an image; the first bytes tell the format."""
    path = ref.path
    if ref.frame:
        raise DataError(f"{path}: holds one image and has no frame {ref.frame}; use frame 0")
    with gfile.open_binary(path) as file:
        head = file.read(4)
        if not head:
            raise DataError(f"{path}: is empty; remove or replace it")
        file.seek(0)
        yield file, tiff if tiff.is_tiff(head) else pillow_images


@contextlib.contextmanager
def _read_errors(path: str) -> Iterator[None]:
    """Raises every error in reading a file as a DataError that names the file."""
    try:
        # An object store reports this when it opens the file, and each request takes a while.
        if not gfile.is_url(path) and os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{path}: is not a file (a folder or device); remove or replace it")
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image in a supported format; remove or replace it") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist, or is a broken link; remove or replace it") from error
    except Exception as error:  # decoders raise errors of every type on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check it") from error
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        reason = "".join(c if c.isprintable() else "?" for c in reason)[:_LONGEST_REASON]
        raise DataError(f"{path}: damaged image ({reason}); remove or replace it") from error
