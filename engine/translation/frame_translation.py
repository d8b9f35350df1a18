"""Frames of a video through a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from data import imaging
from data.description import ImageFormat
from data.errors import DataError
from data.formats import chroma
from data.formats.planar_frames import PlanarFrames
from data.video.clip import Clip, Frame
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.pictures.picture_input import Picture
from engine.pictures.trained_size import TrainedSize
from engine.translation.network_runner import NetworkInput, NetworkRunner
from engine.translation.tiled_runner import TiledRunner

_WHOLE_RANGES = ((0, 255), (0, 65535))


class FrameTranslation:
    """Translates the frames of one clip, which all have one size.

    Args:
      runner: runs the network.
      clip: whose frames are translated.
      size: to which frames are resized, and outputs back; None leaves them.
      code: [1, latent_size], for all frames; None for the task's default.

    Attributes:
      tiled: runs the network on large frames.
      is_tiled: whether the frames are large.

    Raises:
      DataError: the network cannot take such frames.
    """

    def __init__(
        self,
        runner: NetworkRunner,
        clip: Clip,
        *,
        size: TrainedSize | None = None,
        code: tf.Tensor | None = None,
    ):
        self._runner, self._clip, self._size, self._code = runner, clip, size, code
        self._value_range = _value_range(clip, runner.translator.input.stored)
        _check_channels(clip, runner.translator.input.channels)
        self.tiled = TiledRunner(runner)
        self.is_tiled = False

    @property
    def unused_size(self) -> TrainedSize | None:
        """The size of pictures in training, if frames are not resized to it; None if that is not known."""
        return self._runner.translator.input.size if self._size is None else None

    def translate(self, frames: Iterable[Frame]) -> Iterator[tuple[np.ndarray, Frame]]:
        """Translates frames; at most a batch of them is in memory.

        Args:
          frames: in order.

        Yields:
          Float pixels [f H, f W, 1 or 3] as of `output_frames`, from 0 to the peak; and the frame, whose
          chroma has the size of the output.

        Raises:
          ConfigurationError: the network cannot take their size, or its output is no picture.
          NonFiniteOutputError: an output is not finite.
        """
        waiting: list[Frame] = []
        done, wanted = 0, 1
        for frame in frames:
            waiting.append(frame)
            if not done and len(waiting) == 1:
                wanted = self._at_once(frame)
            if len(waiting) == wanted:
                yield from self._together(waiting, first=done)
                done += len(waiting)
                waiting = []
        if waiting:
            yield from self._together(waiting, first=done)

    def output_frames(self, shape: tuple[int, ...]) -> PlanarFrames:
        """The format of the output, whose frames have the shape [H, W, C]: all but the size is kept.

        Three channels are RGB or, if the frames were planes, planes; one is luma if the frames were luma or
        planes, and else grey.
        """
        height, width, channels = shape
        seen = self._clip.frames.colours
        if channels == 1:
            colours = "rgb" if seen == "rgb" else "y"
        else:
            colours = "ycbcr" if seen == "ycbcr" else "rgb"
        return dataclasses.replace(self._clip.frames, height=height, width=width, colours=colours)

    def _at_once(self, frame: Frame) -> int:
        """How many frames are translated together."""
        height, width = self._seen(frame, 0).size
        with self._named_errors():
            self.is_tiled = self._size is None and self.tiled.plan(height, width) is not None
            return 1 if self.is_tiled else self._runner.batch(*self._runner.sizes.padded(height, width))

    def _seen(self, frame: Frame, position: int) -> NetworkInput:
        pixels = np.ascontiguousarray(frame.pixels)
        if self._size is not None:
            pixels = self._size.apply(pixels, padding=self._value_range[0]).numpy()
        return NetworkInput(picture=Picture(pixels=pixels, value_range=self._value_range), position=position)

    def _together(self, frames: Sequence[Frame], *, first: int) -> Iterator[tuple[np.ndarray, Frame]]:
        seen = [self._seen(frame, first + k) for k, frame in enumerate(frames)]
        with self._named_errors():
            plan = self.tiled.plan(*seen[0].size) if self.is_tiled else None
            if plan is None:
                outputs = self._run(seen)
            else:
                outputs = [np.concatenate([*self.tiled.bands(one, plan, self._code)]) for one in seen]
        for number, (frame, output) in enumerate(zip(frames, outputs, strict=True), first):
            if not np.isfinite(output).all():
                raise NonFiniteOutputError(f"{self._clip.path}, frame {number}")
            with self._named_errors():
                pixels = self._pixels(output, frame)
            if frame.chroma is not None:
                frame = frame._replace(chroma=self._chroma(frame, pixels))
            yield pixels, frame

    def _run(self, seen: Sequence[NetworkInput]) -> list[np.ndarray]:
        """The outputs for frames; one by one if the network cannot take them together."""
        try:
            return self._runner.run(seen, self._code)
        except ConfigurationError:
            if len(seen) == 1:
                raise
            return [output for one in seen for output in self._run([one])]

    def _pixels(self, output: np.ndarray, frame: Frame) -> np.ndarray:
        if output.shape[-1] not in (1, 3):
            raise ConfigurationError(
                f"the network's output has {output.shape[-1]} channels, so it is no video; translate single "
                "frames with --raw"
            )
        rgb = self._runner.translator.to_rgb(tf.convert_to_tensor(output))
        if self._size is not None:
            rgb = self._size.undo(rgb, height=frame.pixels.shape[0], width=frame.pixels.shape[1])
        peak = self._clip.frames.peak
        return imaging.signed_to_range(rgb, low=0, high=peak, dtype=tf.float32).numpy()

    def _chroma(self, frame: Frame, pixels: np.ndarray) -> np.ndarray | None:
        """Chroma of the frame for luma of another size; as it is for the same size."""
        assert frame.chroma is not None, "the caller asks"
        if pixels.shape[:2] == frame.pixels.shape[:2]:
            return frame.chroma
        clip = self._clip.frames
        height, width = frame.pixels.shape[:2]
        planes = frame.chroma.astype(np.float64)
        if clip.step == 2:
            planes = chroma.interpolated(planes, height=height, width=width, location=clip.chroma_location)
        enlarged = imaging.resample(
            tf.constant(planes[..., np.newaxis]), height=pixels.shape[0], width=pixels.shape[1]
        ).numpy()[..., 0]  # [2, f H, f W]
        return enlarged if clip.step == 1 else chroma.subsampled(enlarged, location=clip.chroma_location)

    def _named_errors(self) -> _NamedErrors:
        can_resize = self._runner.translator.input.size is not None and self._size is None
        return _NamedErrors(self._clip.path, ", or add --resize=as_trained" if can_resize else "")


class _NamedErrors:
    """Adds the clip, and what can be done about its size, to errors about it."""

    def __init__(self, path: str, hint: str):
        self._path, self._hint = path, hint

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ConfigurationError):
            raise ConfigurationError(f"{self._path}: {error}{self._hint}") from error


def _value_range(clip: Clip, trained: ImageFormat | None) -> tuple[float, float]:
    """What becomes -1 and 1: the range of the frames, if training saw whole ranges."""
    whole = (0, clip.frames.peak)
    if trained is None or tuple(trained.value_range) in (*_WHOLE_RANGES, whole):
        return whole
    raise DataError(
        f"{clip.path}: has {clip.frames.bits}-bit frames, but the run was trained on {trained}, and how the "
        "two compare is not known; convert the video"
    )


def _check_channels(clip: Clip, wanted: int) -> None:
    """Raises DataError for frames of other channels than the network takes."""
    found = clip.frames.channels
    if found == wanted:
        return
    if wanted == 1:
        remedy = "add --video_colours=y, which translates luma and keeps the colours"
    elif wanted == 3:
        remedy = "leave out --video_colours=y"
    else:
        remedy = "translate its frames as pictures"
    raise DataError(
        f"{clip.path}: has frames of {found} channel{'s' if found > 1 else ''}, but the network takes "
        f"{wanted}; {remedy}"
    )
