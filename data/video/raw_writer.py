"""Writes frames to .y4m and .yuv files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from data.formats.planar_frames import PlanarFrames
from data.formats.y4m_header import Y4mHeader, frame_header
from data.video.clip import Clip, Frame
from data.video.whole_file import whole_file


class RawWriter:
    """Writes frames; a `ClipWriter`.

    Args:
      file: open for writing.
      frames: their format.
      header: of a .y4m file; None writes only the samples, as in a .yuv file.
    """

    def __init__(self, file: BinaryIO, frames: PlanarFrames, header: Y4mHeader | None):
        self._file, self._frames, self._header = file, frames, header
        if header is not None:
            file.write(header.to_bytes())

    def write(self, pixels: np.ndarray, source: Frame) -> None:
        """See `ClipWriter`."""
        samples = self._frames.to_samples(pixels, chroma_samples=source.chroma)
        if self._header is not None:
            self._file.write(frame_header(source.header))
        self._file.write(samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes())


@contextlib.contextmanager
def raw_writer(path: str, frames: PlanarFrames, clip: Clip, *, rate: Fraction) -> Iterator[RawWriter]:
    """Opens a .y4m or .yuv file for writing; it appears at the end of the block.

    Args:
      path: of the file.
      frames: its format.
      clip: that the frames come from. The header of a .y4m clip is kept, with the size of the new frames.
      rate: frames per second, for a header of any other clip.
    """
    header = None
    if path.lower().endswith(".y4m"):
        header = clip.header or Y4mHeader.of(frames, rate=rate, aspect=clip.aspect)
        header = header.resized(width=frames.width, height=frames.height)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        yield RawWriter(file, frames, header)
