"""Translates a video frame by frame, with bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import gfile
from data.errors import DataError
from data.formats.planar_frames import PlanarFrames
from data.video.clip import Clip, ClipReader, ClipWriter, Frame
from data.video.container_writer import encoded_frames
from data.video.files import check_writable, is_video_name, open_reader, open_writer
from data.video.frame_folder import FolderReader
from data.video.pyav import is_container_name
from engine.errors import ConfigurationError
from engine.pictures.trained_size import TrainedSize
from engine.reporting.closed_terminal import allow_closed_terminal
from engine.storage.file_errors import reraise_write_errors
from engine.translation.frame_translation import FrameTranslation
from engine.translation.network_runner import NetworkRunner
from engine.translation.video_settings import VideoSettings


def is_video(paths: Sequence[str], output: str) -> bool:
    """Whether a video is translated: one is given, or pictures are to become one.

    Args:
      paths: of the inputs.
      output: where the results go.

    Raises:
      ConfigurationError: several videos are given, or videos among pictures.
    """
    videos = [path for path in paths if is_video_name(path)]
    if videos and len(paths) > 1 and is_video_name(output):
        raise ConfigurationError(
            f"--input: holds {videos[0]} among {len(paths)} files; give one video, or pictures alone"
        )
    return len(videos) == len(paths) == 1 or is_video_name(output)


def translate_video(
    paths: Sequence[str],
    output: str,
    runner: NetworkRunner,
    settings: VideoSettings,
    *,
    size: TrainedSize | None = None,
    code: tf.Tensor | None = None,
) -> str:
    """Translates a video; prints how it went.

    The output appears when it is whole. If a frame of the input is damaged, it holds those before it.

    Args:
      paths: the video, or pictures that are its frames.
      output: a file whose name is that of a video; otherwise a folder for frames.
      runner: runs the network.
      settings: how videos are read and written.
      size: to which frames are resized, and outputs back; None leaves them.
      code: [1, latent_size], for all frames; None for the task's default.

    Returns:
      The output.

    Raises:
      ConfigurationError: the network cannot take the frames, or the output cannot be written.
      data.errors.DataError: the video cannot be read, or a frame is damaged.
      engine.errors.NonFiniteOutputError: an output is not finite.
    """
    _check_output(paths, output)
    check_writable(output)
    is_file = is_video_name(paths[0])
    reader = open_reader(paths[0], settings.format) if is_file else FolderReader(paths, settings.format)
    translation = FrameTranslation(runner, reader.clip, size=size, code=code)
    damages: list[DataError] = []
    with _bar(reader.clip) as bar, _Output(output, translation, reader.clip, settings) as written:
        for pixels, source in translation.translate(_until_damage(reader, damages)):
            written.write(pixels, source)
            with allow_closed_terminal():
                bar.update()
    frames = written.frames
    if frames:
        counted = "1 frame" if frames == 1 else f"{frames} frames"
        print(
            f"translated {counted} of {reader.clip.path} into {output} with {runner.translator.description}"
        )
    if damages:
        kept = f"; the {frames} frames before it are translated" if frames else ""
        raise DataError(f"{damages[0]}{kept}")
    return output


class _Output:
    """The file or folder that is written; opened for the first frame, which says its size.

    Args:
      path: of it.
      translation: of the frames.
      clip: that they come from.
      settings: how it is written.

    Attributes:
      frames: how many are written.
    """

    def __init__(self, path: str, translation: FrameTranslation, clip: Clip, settings: VideoSettings):
        self._path, self._translation, self._clip, self._settings = path, translation, clip, settings
        self._stack = contextlib.ExitStack()
        self._writer: ClipWriter | None = None
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def write(self, pixels: np.ndarray, source: Frame) -> None:
        """Appends a frame; see `ClipWriter`."""
        with self._errors():
            if self._writer is None:
                self._writer = self._open(pixels.shape)
            self._writer.write(pixels, source)
        self.frames += 1

    def __exit__(self, *error: Any) -> None:
        with self._errors():
            self._stack.__exit__(*error)

    def _open(self, shape: tuple[int, ...]) -> ClipWriter:
        frames = self._translation.output_frames(shape)
        _show_notes(self._translation, self._clip, frames, self._path)
        return self._stack.enter_context(
            open_writer(
                self._path,
                self._clip,
                frames,
                rate=self._settings.rate,
                encoding=self._settings.encoding,
            )
        )

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return reraise_write_errors(
            f"--output={self._path}", remedy="choose another place, or make room there"
        )


def _check_output(paths: Sequence[str], output: str) -> None:
    """Raises ConfigurationError if the output would replace an input."""
    for path in paths:
        with contextlib.suppress(OSError):  # there is no output yet, or one is in a store
            if path == output or os.path.samefile(path, output):
                raise ConfigurationError(f"--output={output}: would overwrite the input; choose another name")


def _until_damage(reader: ClipReader, damages: list[DataError]) -> Iterator[Frame]:
    """The frames up to the first that cannot be read; the error about that one is appended to `damages`."""
    try:
        yield from reader
    except DataError as error:
        damages.append(error)
    except OSError as error:
        damages.append(DataError(f"{reader.clip.path}: cannot be read ({gfile.reason_of(error)}); check it"))


def _show_notes(translation: FrameTranslation, clip: Clip, frames: PlanarFrames, output: str) -> None:
    """Prints what the user may not expect of the frames that are written."""
    trained = translation.unused_size
    if trained is not None and trained.differs(clip.frames.height, clip.frames.width):
        print(
            f"note: frames are not of {trained.height}x{trained.width} pixels, to which training resized its "
            "pictures; try --resize=as_trained, which resizes these too, and the results back"
        )
    if translation.is_tiled:
        print(f"note: frames are translated in tiles {translation.tiled.description}")
    if clip.has_audio and not is_container_name(output):
        print(f"note: the sound of {clip.path} is not kept; an --output such as clip.mp4 keeps it")
    if is_container_name(output) and encoded_frames(frames).step != frames.step:
        print(f"note: stored as 4:4:4, because 4:2:0 needs even sides, not {frames.width}x{frames.height}")


@contextlib.contextmanager
def _bar(clip: Clip) -> Iterator[tqdm]:
    """A progress bar; without a terminal there is none."""
    bar = tqdm(total=clip.total, unit="frame", dynamic_ncols=True, disable=None)
    try:
        yield bar
    finally:
        with allow_closed_terminal():
            bar.close()
