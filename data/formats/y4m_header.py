"""Headers of YUV4MPEG2 files, .y4m; see yuv4mpeg(5) of mjpegtools."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import BinaryIO, Self

from data.errors import DataError
from data.formats.planar_frames import PlanarFrames

FORMATS = {
    "420": ("yuv420p", "center"),
    "420jpeg": ("yuv420p", "center"),
    "420mpeg2": ("yuv420p", "left"),
    "420p10": ("yuv420p10", "left"),
    "444": ("yuv444p", "left"),
    "444p10": ("yuv444p10", "left"),
}
"""Tag of the colour space -> (pixel format, chroma location)."""

_SIGNATURE = b"YUV4MPEG2"
_LONGEST_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Y4mHeader:
    """The header of a file: its parameters as they stand there.

    Attributes:
      tags: such as W352, H288, F30:1, Ip, A1:1, C420jpeg, XCOLORRANGE=LIMITED. Every byte is a character of
        Latin-1, so that comments (X) in any encoding stay as they are.
    """

    tags: tuple[str, ...]

    @classmethod
    def read(cls, file: BinaryIO, path: str) -> Self:
        """Reads the header at the start of a file.

        Args:
          file: stands after the header then.
          path: named in errors.

        Raises:
          DataError: it is not a header of frames that can be read.
        """
        words = file.readline(_LONGEST_BYTES).split()
        if not words or words[0] != _SIGNATURE:
            raise DataError(f"{path}: does not begin like a YUV4MPEG2 file; remove or replace it")
        header = cls(tuple(word.decode("latin-1") for word in words[1:]))
        colour_space = header._value("C", "420jpeg")
        if colour_space not in FORMATS:
            raise DataError(
                f"{path}: its pixel format {colour_space} is not supported; convert it to one of "
                f"{', '.join(FORMATS)}"
            )
        if header._value("I", "?") not in "p?":
            raise DataError(f"{path}: is interlaced; deinterlace it first")
        if not (header._value("W", "").isdigit() and header._value("H", "").isdigit()):
            raise DataError(f"{path}: damaged video (no width or height); remove or replace it")
        return header

    @classmethod
    def of(cls, frames: PlanarFrames, *, rate: Fraction, aspect: Fraction | None) -> Self:
        """Makes the header for progressive frames.

        Args:
          frames: of the file. The format has no name for 10 bits with chroma at the "center".
          rate: frames per second.
          aspect: width of a pixel by its height; None if it is not known.
        """
        location = "left" if frames.step == 1 else frames.chroma_location
        colour_space = next(
            tag
            for tag, (pixel_format, where) in reversed(FORMATS.items())
            if pixel_format == frames.pixel_format and (where == location or frames.bits > 8)
        )
        return cls(
            (
                f"W{frames.width}",
                f"H{frames.height}",
                f"F{rate.numerator}:{rate.denominator}",
                "Ip",
                "A0:0" if aspect is None else f"A{aspect.numerator}:{aspect.denominator}",
                f"C{colour_space}",
                f"XCOLORRANGE={'FULL' if frames.full_range else 'LIMITED'}",
            )
        )

    def frames(self, *, full_range: bool, matrix: str, colours: str) -> PlanarFrames:
        """The format of the frames.

        Args:
          full_range: of a file that does not say it.
          matrix: as of `PlanarFrames`.
          colours: as of `PlanarFrames`.
        """
        pixel_format, location = FORMATS[self._value("C", "420jpeg")]
        for tag in self.tags:
            if tag.upper() in ("XCOLORRANGE=FULL", "XCOLORRANGE=LIMITED"):
                full_range = tag.upper().endswith("FULL")
        return PlanarFrames(
            width=int(self._value("W", "")),
            height=int(self._value("H", "")),
            pixel_format=pixel_format,
            full_range=full_range,
            chroma_location=location,
            matrix=matrix,
            colours=colours,
        )

    @property
    def rate(self) -> Fraction | None:
        """Frames per second; None if the file does not say it."""
        return _ratio(self._value("F", ""))

    @property
    def aspect(self) -> Fraction | None:
        """Width of a pixel by its height; None if the file does not say it."""
        return _ratio(self._value("A", ""))

    def resized(self, *, width: int, height: int) -> Self:
        """The same header for frames of another size."""
        sizes = {"W": f"W{width}", "H": f"H{height}"}
        return dataclasses.replace(self, tags=tuple(sizes.get(tag[0], tag) for tag in self.tags))

    def to_bytes(self) -> bytes:
        """The line that begins the file."""
        return b" ".join([_SIGNATURE, *(tag.encode("latin-1") for tag in self.tags)]) + b"\n"

    def _value(self, letter: str, default: str) -> str:
        """The last value of a parameter."""
        values = [tag[1:] for tag in self.tags if tag[0] == letter]
        return values[-1] if values else default


def read_frame_header(file: BinaryIO, path: str, number: int) -> bytes | None:
    """Reads the line before a frame.

    Args:
      file: stands before the line.
      path: named in errors.
      number: of the frame, likewise.

    Returns:
      Its parameters, mostly empty; None at the end of the file.

    Raises:
      DataError: there is another line.
    """
    line = file.readline(_LONGEST_BYTES)
    if not line:
        return None
    if line.split()[:1] != [b"FRAME"] or not line.endswith(b"\n"):
        raise damaged_frame(path, number)
    return line[len(b"FRAME") : -1]


def damaged_frame(path: str, number: int) -> DataError:
    """The error for a frame that is not whole."""
    return DataError(f"{path}: damaged video (frame {number} is truncated or begins wrong); replace it")


def frame_header(parameters: bytes = b"") -> bytes:
    """The line before a frame, with its parameters as `read_frame_header` returns them."""
    return b"FRAME" + parameters + b"\n"


def _ratio(text: str) -> Fraction | None:
    numerator, _, denominator = text.partition(":")
    if not (numerator.isdigit() and denominator.isdigit()) or not int(numerator) or not int(denominator):
        return None
    return Fraction(int(numerator), int(denominator))
