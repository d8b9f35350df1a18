"""Raw planar video, .yuv and .y4m: each frame is an image.

By default frames become RGB, with the chroma of 4:2:0 interpolated to full size, so that they are shown and
measured like any image; `ImageDataset.colour_space` converts them for the networks. Planes that are kept as
they are (`VideoFormat.colours`) are plain numbers to everything that follows: train on them with
colour_space = "rgb"; they are shown in false colours.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import typing
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np

from data import gfile
from data.errors import DataError
from data.formats.image_info import ImageInfo, ImageRef, check_pixels
from data.imaging import ycbcr

PIXEL_FORMATS = {"yuv420p": (2, 8), "yuv444p": (1, 8), "yuv420p10": (2, 10), "yuv444p10": (1, 10)}
"""Name -> (luma samples per chroma sample along each axis, bits per sample)."""

_Y4M_FORMATS = {
    "420": ("yuv420p", "center"),
    "420jpeg": ("yuv420p", "center"),
    "420mpeg2": ("yuv420p", "left"),
    "420p10": ("yuv420p10", "left"),
    "444": ("yuv444p", "left"),
    "444p10": ("yuv444p10", "left"),
}
_Y4M_SIGNATURE = b"YUV4MPEG2"
_LONGEST_HEADER_BYTES = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """How raw planar video is read.

    Attributes:
      size: (width, height) in pixels of the frames of .yuv files. A .y4m file states its own.
      pixel_format: of .yuv files, a key of `PIXEL_FORMATS`; 10 bits are little-endian 16-bit words. A .y4m
        file states its own.
      colours: "rgb": converted to RGB, chroma interpolated linearly, rounded; "ycbcr": the planes as they
        are, chroma repeated to full size, 3 channels; "y": luma as it is, 1 channel.
      matrix: "bt601" or "bt709", of the conversion to RGB.
      full_range: whether the values of .yuv files, and of .y4m files that do not state it, cover the whole
        range of the bits; else the studio range (16 to 235 with 8 bits).
      chroma_location: position of a chroma sample of a 4:2:0 .yuv file among its four luma samples: "left"
        (MPEG-2, H.264: between the two on the left) or "center" (JPEG). A .y4m file states its own.

    Raises:
      DataError: a field has another value.
    """

    size: tuple[int, int] | None = None
    pixel_format: str = "yuv420p"
    colours: str = "rgb"
    matrix: str = "bt601"
    full_range: bool = False
    chroma_location: str = "left"

    def __post_init__(self) -> None:
        choices: Iterable[str]
        for name, choices in (
            ("pixel_format", PIXEL_FORMATS),
            ("colours", ("rgb", "ycbcr", "y")),
            ("matrix", ycbcr.LUMA_WEIGHTS),
            ("chroma_location", ("left", "center")),
        ):
            if getattr(self, name) not in choices:
                raise DataError(
                    f"video {name} {getattr(self, name)!r}: not known; choose one of {', '.join(choices)}"
                )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise DataError(f"video size {self.size}: must be width and height in pixels, at least 1")


class _Stream(typing.NamedTuple):
    """The frames of a file; `starts` holds the position of each in bytes."""

    width: int
    height: int
    pixel_format: str
    chroma_location: str
    full_range: bool
    starts: Sequence[int]


def is_video_name(path: str) -> bool:
    """Whether a file name is that of a raw video in a supported format."""
    return os.path.splitext(path)[1].lower() in (".yuv", ".y4m")


def number_of_frames(path: str, video: VideoFormat) -> int:
    """Returns the number of frames of a video; raises a DataError if the file has another format."""
    return len(_stream(path, video).starts)


def read_info(ref: ImageRef, video: VideoFormat, *, max_pixels: int) -> ImageInfo:
    """Returns the `ImageInfo` of a frame; raises a DataError if there is no such frame."""
    stream = _stream(ref.path, video)
    check_pixels(ref.path, height=stream.height, width=stream.width, max_pixels=max_pixels)
    if ref.frame not in range(len(stream.starts)):
        raise DataError(
            f"{ref.path}: has {len(stream.starts)} frames and no frame {ref.frame}; count frames from 0"
        )
    bits = PIXEL_FORMATS[stream.pixel_format][1]
    return ImageInfo(
        height=stream.height,
        width=stream.width,
        channels=1 if video.colours == "y" else 3,
        dtype="uint8" if bits == 8 else "uint16",
        value_range=(0, 2**bits - 1),
    )


def decode(ref: ImageRef, video: VideoFormat, *, max_pixels: int) -> tuple[ImageInfo, np.ndarray]:
    """Reads a frame: (`ImageInfo`, pixels [H, W, 1 or 3] as `VideoFormat` defines them)."""
    info, stream = read_info(ref, video, max_pixels=max_pixels), _stream(ref.path, video)
    step, bits = PIXEL_FORMATS[stream.pixel_format]
    samples = _read_samples(ref, stream)
    luma_samples = stream.height * stream.width
    luma = samples[:luma_samples].reshape(stream.height, stream.width, 1)
    if video.colours == "y":
        return info, luma.astype(info.dtype)
    chroma = samples[luma_samples:].reshape(2, -(-stream.height // step), -(-stream.width // step))
    if video.colours == "ycbcr":
        chroma = chroma.repeat(step, axis=1).repeat(step, axis=2)[:, : stream.height, : stream.width]
        return info, np.concatenate([luma, np.moveaxis(chroma, 0, -1)], axis=-1).astype(info.dtype)
    if step == 2:
        chroma = _doubled(chroma, axis=1, location="center")[:, : stream.height]
        chroma = _doubled(chroma, axis=2, location=stream.chroma_location)[:, :, : stream.width]
    planes = np.concatenate([luma, np.moveaxis(chroma, 0, -1)], axis=-1).astype(np.float64)  # [H, W, 3]
    rgb = ycbcr.ycbcr_to_rgb(planes, matrix=video.matrix, full_range=stream.full_range, bits=bits)
    return info, np.clip(np.floor(rgb + 0.5), 0, 2**bits - 1).astype(info.dtype)


def _read_samples(ref: ImageRef, stream: _Stream) -> np.ndarray:
    """All samples of a frame, plane after plane: uint8 or uint16 [samples]."""
    bits = PIXEL_FORMATS[stream.pixel_format][1]
    with gfile.open_binary(ref.path) as file:
        file.seek(stream.starts[ref.frame])
        frame = file.read(_frame_bytes(stream.width, stream.height, stream.pixel_format))
    samples = np.frombuffer(frame, np.uint8 if bits == 8 else np.dtype("<u2"))
    if bits > 8 and samples.max() >= 2**bits:
        raise DataError(
            f"{ref.path}: frame {ref.frame} holds the value {samples.max()}, too large for {bits} bits in "
            "little-endian words; give the file's own pixel format"
        )
    return samples


def _doubled(planes: np.ndarray, *, axis: int, location: str) -> np.ndarray:
    """Doubles the length of an axis by linear interpolation; the outermost samples are repeated.

    A chroma sample lies half a sample after the first of its two luma samples ("center"), or at the first
    ("left").
    """
    planes = np.moveaxis(planes.astype(np.float64), axis, 0)
    before = np.concatenate([planes[:1], planes[:-1]])
    after = np.concatenate([planes[1:], planes[-1:]])
    if location == "center":
        first, second = 0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after
    else:
        first, second = planes, 0.5 * planes + 0.5 * after
    both = np.stack([first, second], axis=1)
    return np.moveaxis(both.reshape(-1, *planes.shape[1:]), 0, axis)


def _frame_bytes(width: int, height: int, pixel_format: str) -> int:
    step, bits = PIXEL_FORMATS[pixel_format]
    return (width * height + 2 * -(-width // step) * -(-height // step)) * (bits + 7 >> 3)


def _stream(path: str, video: VideoFormat) -> _Stream:
    size_bytes, changed_ns = gfile.size_and_mtime(path)
    if not size_bytes:
        raise DataError(f"{path}: is empty; remove or replace it")
    if path.lower().endswith(".y4m"):
        return _y4m_stream(path, video.full_range, size_bytes, changed_ns)
    if video.size is None:
        raise DataError(
            f"{path}: a .yuv file does not state its frame size; give width and height, such as "
            "--video_size=352x288"
        )
    width, height = video.size
    frame_bytes = _frame_bytes(width, height, video.pixel_format)
    if size_bytes % frame_bytes:
        raise DataError(
            f"{path}: its {size_bytes} bytes are not a whole number of {width}x{height} {video.pixel_format} "
            f"frames of {frame_bytes} bytes; give the file's own size and pixel format, or replace it"
        )
    return _Stream(
        width=width,
        height=height,
        pixel_format=video.pixel_format,
        chroma_location=video.chroma_location,
        full_range=video.full_range,
        starts=range(0, size_bytes, frame_bytes),
    )


# The header of each frame has its own length, so finding a frame means reading the headers before it.
@functools.lru_cache(maxsize=16)
def _y4m_stream(path: str, full_range: bool, size_bytes: int, changed_ns: int) -> _Stream:
    """The `_Stream` of a YUV4MPEG2 file, see yuv4mpeg(5) of mjpegtools.

    Size and time are arguments so that the cache does not return the stream of an earlier file.
    """
    with gfile.open_binary(path) as file:
        words = file.readline(_LONGEST_HEADER_BYTES).split()
        if not words or words[0] != _Y4M_SIGNATURE:
            raise DataError(f"{path}: does not begin like a YUV4MPEG2 file; remove or replace it")
        tags = [word.decode("ascii", "replace") for word in words[1:]]
        values = {tag[0]: tag[1:] for tag in tags if tag[0] != "X"}
        colour_space = values.get("C", "420jpeg")
        if colour_space not in _Y4M_FORMATS:
            raise DataError(
                f"{path}: its pixel format {colour_space} is not supported; convert it to one of "
                f"{', '.join(_Y4M_FORMATS)}"
            )
        if values.get("I", "?") not in "p?":
            raise DataError(f"{path}: is interlaced; deinterlace it first")
        if not (values.get("W", "").isdigit() and values.get("H", "").isdigit()):
            raise DataError(f"{path}: damaged video (no width or height); remove or replace it")
        for tag in tags:
            if tag.upper() in ("XCOLORRANGE=FULL", "XCOLORRANGE=LIMITED"):
                full_range = tag.upper().endswith("FULL")
        pixel_format, chroma_location = _Y4M_FORMATS[colour_space]
        width, height = int(values["W"]), int(values["H"])
        starts = _y4m_starts(file, path, _frame_bytes(width, height, pixel_format), size_bytes)
    return _Stream(width, height, pixel_format, chroma_location, full_range, starts)


def _y4m_starts(file: BinaryIO, path: str, frame_bytes: int, size_bytes: int) -> list[int]:
    """The positions in bytes of the frames in a file that is open after its header."""
    starts: list[int] = []
    while line := file.readline(_LONGEST_HEADER_BYTES):
        if line.split()[:1] != [b"FRAME"] or file.tell() + frame_bytes > size_bytes:
            raise DataError(
                f"{path}: damaged video (frame {len(starts)} is truncated or begins wrong); replace it"
            )
        starts.append(file.tell())
        file.seek(frame_bytes, os.SEEK_CUR)
    if not starts:
        raise DataError(f"{path}: holds no frames; remove or replace it")
    return starts
