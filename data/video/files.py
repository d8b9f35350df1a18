"""Opens videos by the names of their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction

from data import gfile
from data.errors import DataError
from data.formats.planar_frames import PlanarFrames
from data.formats.raw_video import VideoFormat
from data.formats.raw_video import is_video_name as is_raw_name
from data.video.clip import DEFAULT_RATE, Clip, ClipReader, ClipWriter
from data.video.container_reader import ContainerReader
from data.video.container_writer import Encoding, container_writer, encoded_frames
from data.video.frame_folder import folder_writer
from data.video.pyav import import_pyav, is_container_name
from data.video.raw_reader import RawReader
from data.video.raw_writer import raw_writer


def is_video_name(path: str) -> bool:
    """Whether a file name is that of a video."""
    return is_raw_name(path) or is_container_name(path)


def check_writable(path: str) -> None:
    """Checks early that a file of this name can be written.

    Raises:
      DataError: PyAV is needed and missing, or the format is only read.
    """
    if is_container_name(path):
        import_pyav(path)
        if path.lower().endswith(".avi"):
            raise DataError(f"{path}: .avi is read but not written; choose .mp4 or .mkv")


def open_reader(path: str, video: VideoFormat) -> ClipReader:
    """Opens a video for reading.

    Args:
      path: of the file.
      video: what the file does not say itself.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return RawReader(path, video) if is_raw_name(path) else ContainerReader(path, video)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({gfile.reason_of(error)}); check it") from error


@contextlib.contextmanager
def open_writer(
    path: str,
    clip: Clip,
    frames: PlanarFrames,
    *,
    rate: Fraction | None = None,
    encoding: Encoding | None = None,
) -> Iterator[ClipWriter]:
    """Opens a video for writing. The file appears at the end of the block, if that does not raise.

    Args:
      path: of the file; any other name than that of a video is a folder for frames.
      clip: that the frames come from.
      frames: their format.
      rate: frames per second where the clip states none; None is `DEFAULT_RATE`.
      encoding: of a container.

    Raises:
      DataError: PyAV is needed and missing, or cannot write such a file.
      OSError, tf.errors.OpError: it cannot be written.
    """
    check_writable(path)
    rate = clip.rate or rate or DEFAULT_RATE
    with contextlib.ExitStack() as stack:
        writer: ClipWriter
        if is_raw_name(path):
            writer = stack.enter_context(raw_writer(path, frames, clip, rate=rate))
        elif is_container_name(path):
            frames, encoding = encoded_frames(frames), encoding or Encoding()
            writer = stack.enter_context(container_writer(path, frames, clip, rate=rate, encoding=encoding))
        else:
            writer = stack.enter_context(folder_writer(path, frames))
        yield writer
