"""Folders of pictures as videos: the frames in order, one PNG each."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from data import gfile
from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import MAX_PIXELS, ImageRef
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat
from data.video.clip import Clip, Frame
from data.video.whole_file import whole_file

_WHITE_16_BITS = 65535


class FolderReader:
    """Reads pictures as the frames of a video; a `ClipReader`.

    Args:
      paths: of the pictures, in any order: frame_2.png comes before frame_10.png.
      video: the pixel format, range and matrix of the video that they become. Its bits are those of the
        frames: 8 for pictures with 16 bits too, unless the pixel format has 10.

    Raises:
      DataError: the first picture cannot be read.
    """

    def __init__(self, paths: Sequence[str], video: VideoFormat):
        self._paths, self._video = sorted(paths, key=_natural_order), video
        info = image_reader.read_info(ImageRef(self._paths[0]), video=video, max_pixels=MAX_PIXELS)
        frames = PlanarFrames(
            width=info.width,
            height=info.height,
            pixel_format=video.pixel_format,
            full_range=video.full_range,
            chroma_location=video.chroma_location,
            matrix=video.matrix,
        )
        self.clip = Clip(path=os.path.dirname(self._paths[0]), frames=frames, total=len(paths))

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames.

        Raises:
          DataError: a picture cannot be read, or has another size than the first; those before it were
            yielded.
        """
        frames = self.clip.frames
        for path in self._paths:
            info, pixels, _ = image_reader.decode(ImageRef(path), video=self._video, max_pixels=MAX_PIXELS)
            if (info.width, info.height) != (frames.width, frames.height):
                raise DataError(
                    f"{path}: is {info.width}x{info.height} among frames of {frames.width}x{frames.height}; "
                    "give all frames of a video one size"
                )
            if info.value_range is None:
                raise DataError(f"{path}: has floating-point pixels; convert it to 8 or 16 bits")
            colours = pixels[..., : info.channels - info.alpha]
            if colours.shape[-1] not in (1, 3):
                raise DataError(f"{path}: has {info.channels} channels; convert it to RGB")
            yield Frame(pixels=_scaled(colours, info.value_range[1], frames))


class FolderWriter:
    """Writes frames as frame_000001.png, frame_000002.png, ...; a `ClipWriter`.

    They are RGB, of 8 bits, or of 16 if the frames have more than 8.

    Args:
      folder: exists.
      frames: the format of the frames.
    """

    def __init__(self, folder: str, frames: PlanarFrames):
        self._folder, self._frames, self._number = folder, frames, 0

    def write(self, pixels: np.ndarray, source: Frame) -> None:
        """See `ClipWriter`."""
        frames, white = self._frames, 255 if self._frames.bits == 8 else _WHITE_16_BITS
        if frames.colours != "rgb":
            samples = frames.to_samples(pixels, chroma_samples=source.chroma)
            pixels = dataclasses.replace(frames, colours="rgb").to_pixels(samples)
        values = np.clip(np.floor(pixels.astype(np.float64) * (white / frames.peak) + 0.5), 0, white)
        self._number += 1
        path = os.path.join(self._folder, f"frame_{self._number:06}.png")
        contents = tf.io.encode_png(values.astype(np.uint8 if white == 255 else np.uint16)).numpy()
        with whole_file(path, flushes=False) as temporary, open(temporary, "wb") as file:
            file.write(contents)


@contextlib.contextmanager
def folder_writer(folder: str, frames: PlanarFrames) -> Iterator[FolderWriter]:
    """Makes a folder for frames. If the block raises, the frames written before stay: each is whole."""
    with gfile.new_dir(folder):
        yield FolderWriter(folder, frames)


def _scaled(pixels: np.ndarray, white: float, frames: PlanarFrames) -> np.ndarray:
    """Pixels of the frames' dtype, RGB, with white at their peak."""
    if white != frames.peak:
        pixels = np.floor(pixels.astype(np.float64) * (frames.peak / white) + 0.5)
    return np.broadcast_to(pixels.astype(frames.dtype), (*pixels.shape[:2], 3))


def _natural_order(path: str) -> list[tuple[int, str]]:
    """Sorts the numbers in names by value: a10 comes after a9."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", path)]
