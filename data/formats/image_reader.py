"""Picture files and raw videos as people have them: what is in them, and their pixels."""

import contextlib
import io
import os

from PIL import Image, UnidentifiedImageError

from data import gfile
from data.errors import DataError
from data.formats import pillow_images, tiff
from data.formats import raw_video as raw_video
from data.formats.image_info import MAX_PIXELS, ImageInfo, ImageRef

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

# What Pillow does not know; named here so that they are refused by name and not passed over.
_OTHER_EXTENSIONS = frozenset(
    ".arw .cr2 .cr3 .dng .exr .heic .heif .jxl .nef .orf .raf .rw2 "
    ".avi .m4v .mkv .mov .mp4 .webm .wmv .264 .265 .h264 .h265".split()
)

_LONGEST_REASON = 120  # characters of what a decoder says


def is_image_name(path):
    """Whether the name is that of a picture or video, also of one that is not read."""
    Image.init()
    extension = os.path.splitext(path)[1].lower()
    return extension in Image.EXTENSION or extension in _OTHER_EXTENSIONS or raw_video.is_video_name(path)


def number_of_frames(path, video):
    """Gives the number of pictures in a file: 1 unless it is a raw video.

    Args:
      path: of the file, as str.
      video: a `data.formats.raw_video.VideoFormat`.

    Raises:
      DataError: it is a raw video, and cannot be read as the format says.
    """
    if not raw_video.is_video_name(path):
        return 1
    with _named_errors(path):
        return raw_video.number_of_frames(path, video)


def read_info(ref, *, video, max_pixels):
    """Reads what a picture is from its header; only an alpha channel is decoded, to see whether it is used.

    Args:
      ref: an `ImageRef`.
      video: how raw video is read, a `data.formats.raw_video.VideoFormat`.
      max_pixels: pictures of more are refused.

    Returns:
      `ImageInfo`.

    Raises:
      DataError: the file cannot be read, is of a kind that is not, or is too large.
    """
    with _named_errors(ref.path):
        if raw_video.is_video_name(ref.path):
            return raw_video.read_info(ref, video, max_pixels=max_pixels)
        with _opened(ref) as (file, reader):
            return reader.read_info(file, ref.path, max_pixels=max_pixels)


def read_pixels(ref, *, video, max_pixels):
    """Reads the pixels of a picture: [H, W, C] of what `read_info` says; arguments and errors as there."""
    return decode(ref, video=video, max_pixels=max_pixels)[1]


def decode(ref, *, video, max_pixels):
    """Decodes a picture completely; arguments and errors as of `read_info`.

    Returns:
      (`ImageInfo`, pixels [H, W, C], {"jpeg" or "png": the bytes of the file}, {} of another format).
    """
    with _named_errors(ref.path):
        if raw_video.is_video_name(ref.path):
            return *raw_video.decode(ref, video, max_pixels=max_pixels), {}
        with _opened(ref) as (file, reader):
            if reader is tiff:
                return *tiff.decode(file, ref.path, max_pixels=max_pixels), {}
            # Before the whole file is read, which may be as large as its pixels are many.
            pillow_images.check_header(file, ref.path, max_pixels=max_pixels)
            file.seek(0)
            contents = file.read()
        kind, pixels, encoding = pillow_images.decode(io.BytesIO(contents), ref.path, max_pixels=max_pixels)
        return kind, pixels, {encoding: contents} if encoding else {}


@contextlib.contextmanager
def _opened(ref):
    """Gives (open file, the module that reads it) of a still picture; its first bytes tell which."""
    path = ref.path
    if ref.frame:
        raise DataError(f"{path}: holds one picture, so none numbered {ref.frame} from 0")
    with gfile.open_binary(path) as file:
        head = file.read(4)
        if not head:
            raise DataError(f"{path}: is empty; remove or replace it")
        file.seek(0)
        yield file, tiff if tiff.is_tiff(head) else pillow_images


@contextlib.contextmanager
def _named_errors(path):
    """Names the file in whatever goes wrong with it."""
    try:
        # A store tells on opening, and each question takes it a while.
        if not gfile.is_url(path) and os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{path}: is not a file (a folder or device); remove or replace it")
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that can be read; remove or replace it") from error
    except PermissionError as error:
        raise DataError(f"{path}: permission denied; make it readable") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: is not there, or is a link to nothing; remove or replace it") from error
    except Exception as error:  # decoders raise every kind on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check it") from error
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        reason = "".join(c if c.isprintable() else "?" for c in reason)[:_LONGEST_REASON]
        raise DataError(f"{path}: damaged image ({reason}); remove or replace it") from error
