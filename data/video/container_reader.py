"""Reads the frames of .mp4 and other containers with PyAV."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from data.errors import DataError
from data.formats.image_info import MAX_PIXELS, check_pixels
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat
from data.video.clip import Clip, Frame
from data.video.pyav import import_pyav, open_container, reraise_read_errors

_RGB, _UNSPECIFIED, _BT601 = 0, 2, 6  # of matrices (Rec. ITU-T H.273, table 4)
_MATRICES = {1: "bt709", 5: "bt601", _BT601: "bt601"}
_FULL_RANGE = 2
_COLOUR_TAGS = ("colorspace", "color_range", "color_primaries", "color_trc")
_SOME_SAMPLES = 16  # of luma, to find how many samples of chroma they have


class ContainerReader:
    """Reads the first video track of a file; a `ClipReader`.

    Frames are turned upright as the file says. Formats other than planar 4:2:0 and 4:4:4 of 8 and 10 bits are
    converted to the nearest of these.

    Args:
      path: of the file.
      video: colours, and the matrix of a file that does not state its own.

    Raises:
      DataError: PyAV is not installed, or the file cannot be read.
    """

    def __init__(self, path: str, video: VideoFormat):
        self._av, self._path, self._video = import_pyav(path), path, video
        with open_container(self._av, path) as container, self._errors(0):
            if not container.streams.video:
                raise DataError(f"{path}: holds no video; remove or replace it")
            stream = container.streams.video[0]
            first = next(container.decode(stream), None)
            if first is None:
                raise DataError(f"{path}: holds no frames; remove or replace it")
            self._stored = self._format(first)
            self._turns = round(first.rotation / 90) % 4
            is_sideways = self._turns % 2 == 1
            size = (self._stored.height, self._stored.width) if is_sideways else None
            aspect = stream.sample_aspect_ratio or None
            self.clip = Clip(
                path=path,
                frames=self._stored
                if size is None
                else dataclasses.replace(self._stored, width=size[0], height=size[1]),
                total=stream.frames or None,
                rate=stream.average_rate or stream.guessed_rate or None,
                aspect=1 / aspect if aspect and is_sideways else aspect,
                colour_tags=_colour_tags(first),
                has_audio=bool(container.streams.audio),
            )

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
          DataError: the file is damaged; the frames before that were yielded.
        """
        number = 0
        with open_container(self._av, self._path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            decoded = container.decode(stream)
            while True:
                with self._errors(number):
                    found = next(decoded, None)
                if found is None:
                    return
                if self._format(found) != self._stored:
                    raise DataError(
                        f"{self._path}: frame {number} has another format than the first; encode the video "
                        "in one format"
                    )
                yield self._frame(found)
                number += 1

    def _errors(self, number: int) -> Any:
        return reraise_read_errors(self._av, self._path, f"damaged video (frame {number})")

    def _format(self, frame: Any) -> PlanarFrames:
        """The format in which a frame is read.

        Raises:
          DataError: it is too large or interlaced, or its colours are not supported.
        """
        check_pixels(self._path, height=frame.height, width=frame.width, max_pixels=MAX_PIXELS)
        if frame.interlaced_frame:
            raise DataError(f"{self._path}: is interlaced; deinterlace it first")
        stored = frame.format
        matrix = "bt601" if stored.is_rgb else self._video.matrix
        if not stored.is_rgb and frame.colorspace not in (_UNSPECIFIED, _RGB):
            if frame.colorspace not in _MATRICES:
                raise DataError(
                    f"{self._path}: has the colour matrix number {frame.colorspace} (Rec. ITU-T H.273), "
                    "which is not supported; convert it to bt709"
                )
            matrix = _MATRICES[frame.colorspace]
        is_420 = (
            len(stored.components) == 1
            or stored.chroma_height(_SOME_SAMPLES) == stored.chroma_width(_SOME_SAMPLES) == _SOME_SAMPLES // 2
        )
        bits = max(component.bits for component in stored.components)
        return PlanarFrames(
            width=frame.width,
            height=frame.height,
            pixel_format=f"yuv{'420' if is_420 and not stored.is_rgb else '444'}p{10 if bits > 8 else ''}",
            full_range=frame.color_range == _FULL_RANGE or stored.name.startswith("yuvj"),
            chroma_location="left",
            matrix=matrix,
            colours=self._video.colours,
        )

    def _frame(self, frame: Any) -> Frame:
        """Converts a decoded frame."""
        wanted = self._stored
        seconds = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
        name = wanted.pixel_format + ("le" if wanted.bits > 8 else "")
        if frame.format.name not in (name, name.replace("yuv", "yuvj")):
            frame = frame.reformat(format=name)
        planes = [_plane(plane, wanted.dtype) for plane in frame.planes]
        pixels = np.rot90(wanted.to_pixels(np.concatenate([plane.ravel() for plane in planes])), self._turns)
        chroma = None
        if wanted.colours == "y":
            chroma = np.rot90(np.stack(planes[1:]), self._turns, axes=(1, 2))
        return Frame(pixels=pixels, chroma=chroma, seconds=seconds)


def _colour_tags(frame: Any) -> dict[str, int]:
    """What a frame says of its colours; RGB becomes Y'CbCr by the matrix of FFmpeg's default."""
    tags = {name: int(getattr(frame, name)) for name in _COLOUR_TAGS}
    return {**tags, "colorspace": _BT601} if frame.format.is_rgb else tags


def _plane(plane: Any, dtype: np.dtype) -> np.ndarray:
    """The samples [H, W] of a plane, whose rows are padded in memory."""
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    return rows[:, : plane.width]
