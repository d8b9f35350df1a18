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
from data.formats.chroma import LOCATIONS
from data.formats.image_info import ImageInfo, ImageRef, check_pixels
from data.formats.planar_frames import COLOURS, PIXEL_FORMATS, PlanarFrames
from data.formats.y4m_header import Y4mHeader, damaged_frame, read_frame_header
from data.imaging import ycbcr


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
            ("colours", COLOURS),
            ("matrix", ycbcr.LUMA_WEIGHTS),
            ("chroma_location", LOCATIONS),
        ):
            if getattr(self, name) not in choices:
                raise DataError(
                    f"video {name} {getattr(self, name)!r}: not known; choose one of {', '.join(choices)}"
                )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise DataError(f"video size {self.size}: must be width and height in pixels, at least 1")


class _Stream(typing.NamedTuple):
    """The frames of a file; `starts` holds the position of each in bytes."""

    frames: PlanarFrames
    starts: Sequence[int]


def is_video_name(path: str) -> bool:
    """Whether a file name is that of a raw video in a supported format."""
    return os.path.splitext(path)[1].lower() in (".yuv", ".y4m")


def number_of_frames(path: str, video: VideoFormat) -> int:
    """Returns the number of frames of a video; raises a DataError if the file has another format."""
    return len(_stream(path, video).starts)


def read_info(ref: ImageRef, video: VideoFormat, *, max_pixels: int) -> ImageInfo:
    """Returns the `ImageInfo` of a frame; raises a DataError if there is no such frame."""
    frames, starts = _stream(ref.path, video)
    check_pixels(ref.path, height=frames.height, width=frames.width, max_pixels=max_pixels)
    if ref.frame not in range(len(starts)):
        raise DataError(f"{ref.path}: has {len(starts)} frames and no frame {ref.frame}; count frames from 0")
    return ImageInfo(
        height=frames.height,
        width=frames.width,
        channels=frames.channels,
        dtype=frames.dtype.name,
        value_range=(0, frames.peak),
    )


def decode(ref: ImageRef, video: VideoFormat, *, max_pixels: int) -> tuple[ImageInfo, np.ndarray]:
    """Reads a frame: (`ImageInfo`, pixels [H, W, 1 or 3] as `VideoFormat` defines them)."""
    info, (frames, starts) = read_info(ref, video, max_pixels=max_pixels), _stream(ref.path, video)
    with gfile.open_binary(ref.path) as file:
        file.seek(starts[ref.frame])
        contents = file.read(frames.frame_bytes)
    return info, frames.to_pixels(samples_of(contents, frames, ref))


def samples_of(contents: bytes, frames: PlanarFrames, ref: ImageRef) -> np.ndarray:
    """The samples of a frame: uint8 or uint16 [N].

    Args:
      contents: of the frame.
      frames: its format.
      ref: the frame, for the error.

    Raises:
      DataError: a value is too large for the format.
    """
    samples = np.frombuffer(contents, np.dtype(np.uint8 if frames.bits == 8 else "<u2"))
    if frames.bits > 8 and samples.max() > frames.peak:
        raise DataError(
            f"{ref.path}: frame {ref.frame} holds the value {samples.max()}, too large for {frames.bits} "
            "bits in little-endian words; give the file's own pixel format"
        )
    return samples


def yuv_frames(path: str, video: VideoFormat, size_bytes: int) -> PlanarFrames:
    """The format of the frames of a .yuv file.

    Raises:
      DataError: the frame size is not given, or the file does not hold a whole number of such frames.
    """
    if video.size is None:
        raise DataError(
            f"{path}: a .yuv file does not state its frame size; give width and height, such as "
            "--video_size=352x288"
        )
    frames = PlanarFrames(
        width=video.size[0],
        height=video.size[1],
        pixel_format=video.pixel_format,
        full_range=video.full_range,
        chroma_location=video.chroma_location,
        matrix=video.matrix,
        colours=video.colours,
    )
    if size_bytes % frames.frame_bytes:
        raise DataError(
            f"{path}: its {size_bytes} bytes are not a whole number of {frames.width}x{frames.height} "
            f"{frames.pixel_format} frames of {frames.frame_bytes} bytes; give the file's own size and pixel "
            "format, or replace it"
        )
    return frames


def _stream(path: str, video: VideoFormat) -> _Stream:
    size_bytes, changed_ns = gfile.size_and_mtime(path)
    if not size_bytes:
        raise DataError(f"{path}: is empty; remove or replace it")
    if path.lower().endswith(".y4m"):
        header, starts = _y4m_index(path, size_bytes, changed_ns)
        return _Stream(
            header.frames(full_range=video.full_range, matrix=video.matrix, colours=video.colours), starts
        )
    frames = yuv_frames(path, video, size_bytes)
    return _Stream(frames, range(0, size_bytes, frames.frame_bytes))


# The header of each frame has its own length, so finding a frame means reading the headers before it.
@functools.lru_cache(maxsize=16)
def _y4m_index(path: str, size_bytes: int, changed_ns: int) -> tuple[Y4mHeader, Sequence[int]]:
    """The header of a YUV4MPEG2 file, and the position of each frame in bytes.

    Size and time are arguments so that the cache does not return the index of an earlier file.
    """
    with gfile.open_binary(path) as file:
        header = Y4mHeader.read(file, path)
        frame_bytes = header.frames(full_range=False, matrix="bt601", colours="rgb").frame_bytes
        return header, _y4m_starts(file, path, frame_bytes, size_bytes)


def _y4m_starts(file: BinaryIO, path: str, frame_bytes: int, size_bytes: int) -> list[int]:
    """The positions in bytes of the frames in a file that is open after its header."""
    starts: list[int] = []
    while read_frame_header(file, path, len(starts)) is not None:
        if file.tell() + frame_bytes > size_bytes:
            raise damaged_frame(path, len(starts))
        starts.append(file.tell())
        file.seek(frame_bytes, os.SEEK_CUR)
    if not starts:
        raise DataError(f"{path}: holds no frames; remove or replace it")
    return starts
