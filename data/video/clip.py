"""What is known of a video before its frames are read, and one of its frames."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from data.formats.planar_frames import PlanarFrames
from data.formats.y4m_header import Y4mHeader

DEFAULT_RATE = Fraction(25)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A video.

    Attributes:
      path: of the file or folder.
      frames: format of the frames.
      total: number of frames as far as the file says it, to show the progress; None if it does not.
      rate: mean frames per second; None if that is not known.
      aspect: width of a pixel by its height; None if that is not known.
      header: of a .y4m file.
      colour_tags: of a file that PyAV reads: names of fields of its codec context, with their numbers.
      has_audio: whether the file has sound.
    """

    path: str
    frames: PlanarFrames
    total: int | None = None
    rate: Fraction | None = None
    aspect: Fraction | None = None
    header: Y4mHeader | None = None
    colour_tags: dict[str, Any] = dataclasses.field(default_factory=dict)
    has_audio: bool = False


class Frame(typing.NamedTuple):
    """A frame.

    Attributes:
      pixels: [H, W, C] as `PlanarFrames` defines them.
      chroma: [2, H', W'] if the pixels are luma only.
      header: parameters of the frame in a .y4m file.
      seconds: since the start of the clip's clock; None if the frame has no time of its own.
    """

    pixels: np.ndarray
    chroma: np.ndarray | None = None
    header: bytes = b""
    seconds: Fraction | None = None


class ClipReader(Protocol):
    """Reads a video. Iterating reads the frames; a damaged one raises a DataError after those before it."""

    @property
    def clip(self) -> Clip:
        """What is read."""

    def __iter__(self) -> Iterator[Frame]: ...


class ClipWriter(Protocol):
    """Writes a video."""

    def write(self, pixels: np.ndarray, source: Frame) -> None:
        """Appends a frame.

        Args:
          pixels: floating [H, W, C] from 0 to the peak of the format.
          source: the frame of the input from which it was made; its time, header and chroma are kept.
        """
