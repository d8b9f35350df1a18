"""Reads the frames of .y4m and .yuv files one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from data import gfile
from data.errors import DataError
from data.formats.image_info import MAX_PIXELS, ImageRef, check_pixels
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat, samples_of, yuv_frames
from data.formats.y4m_header import Y4mHeader, damaged_frame, frame_header, read_frame_header
from data.video.clip import Clip, Frame


class RawReader:
    """Reads a .y4m or .yuv file; a `ClipReader`.

    Args:
      path: of the file.
      video: how it is read.

    Raises:
      DataError: its header cannot be read, or a .yuv file does not hold a whole number of frames.
    """

    def __init__(self, path: str, video: VideoFormat):
        size_bytes, _ = gfile.size_and_mtime(path)
        if not size_bytes:
            raise DataError(f"{path}: is empty; remove or replace it")
        self._header: Y4mHeader | None = None
        self._start_bytes = 0
        if path.lower().endswith(".y4m"):
            with gfile.open_binary(path) as file:
                self._header = Y4mHeader.read(file, path)
                self._start_bytes = file.tell()
            frames = self._header.frames(
                full_range=video.full_range, matrix=video.matrix, colours=video.colours
            )
            # Exact unless frames have parameters of their own, or the last one is truncated.
            total = (size_bytes - self._start_bytes) // (len(frame_header()) + max(frames.frame_bytes, 1))
        else:
            frames = yuv_frames(path, video, size_bytes)
            total = size_bytes // frames.frame_bytes
        check_pixels(path, height=frames.height, width=frames.width, max_pixels=MAX_PIXELS)
        self.clip = Clip(
            path=path,
            frames=frames,
            total=total,
            rate=None if self._header is None else self._header.rate,
            aspect=None if self._header is None else self._header.aspect,
            header=self._header,
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
          DataError: a frame is damaged; those before it were yielded.
        """
        path, frames, number = self.clip.path, self.clip.frames, 0
        with gfile.open_binary(path) as file:
            file.seek(self._start_bytes)
            while (header := self._next_header(file, number)) is not None:
                contents = file.read(frames.frame_bytes)
                if not contents and self._header is None:
                    return
                if len(contents) < frames.frame_bytes:
                    raise damaged_frame(path, number)
                yield _frame(contents, frames, header, ImageRef(path, number))
                number += 1
        if not number:
            raise DataError(f"{path}: holds no frames; remove or replace it")

    def _next_header(self, file: BinaryIO, number: int) -> bytes | None:
        return b"" if self._header is None else read_frame_header(file, self.clip.path, number)


def _frame(contents: bytes, frames: PlanarFrames, header: bytes, ref: ImageRef) -> Frame:
    samples = samples_of(contents, frames, ref)
    chroma = frames.split(samples)[1] if frames.colours == "y" else None
    return Frame(pixels=frames.to_pixels(samples), chroma=chroma, header=header)
