"""Writes frames to .mp4 and other containers with PyAV."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from data.errors import DataError
from data.formats.planar_frames import PlanarFrames
from data.video.clip import Clip, Frame
from data.video.pyav import import_pyav, open_container
from data.video.whole_file import whole_file

_STUDIO_RANGE, _FULL_RANGE = 1, 2  # as FFmpeg numbers them
_FINEST_CLOCK = 90_000  # ticks per second, as of MPEG streams; the ticks of 24, 25, 30, 50 and 60 fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """How frames are compressed.

    Attributes:
      codec: an encoder of FFmpeg; None is libx264 (H.264), or libvpx-vp9 in .webm.
      crf: constant rate factor, quality against size: lower is better; 18 of H.264 is said to look like the
        original.
    """

    codec: str | None = None
    crf: int = 18


def encoded_frames(frames: PlanarFrames) -> PlanarFrames:
    """The format in which a container holds frames; 4:2:0 needs even sides, others become 4:4:4."""
    if frames.step == 2 and (frames.width % 2 or frames.height % 2):
        name = frames.pixel_format.replace("420", "444")
        return dataclasses.replace(frames, pixel_format=name, chroma_location="left")
    return dataclasses.replace(frames, chroma_location="left")


class ContainerWriter:
    """Writes frames; a `ClipWriter`.

    Args:
      av: PyAV.
      container: open for writing; has the track.
      track: of the video.
      frames: their format.
      clip: that they come from.
      sound: packets of its audio, in order.
    """

    def __init__(
        self,
        av: Any,
        container: Any,
        track: Any,
        frames: PlanarFrames,
        clip: Clip,
        sound: Iterator[Any],
    ):
        self._av, self._container, self._track, self._frames = av, container, track, frames
        self._colour_tags, self._sound = _colour_tags(frames, clip), sound
        self._period = 1 / Fraction(track.codec_context.framerate)
        self._seconds: Fraction | None = None
        self._waiting: Any = next(sound, None)

    def write(self, pixels: np.ndarray, source: Frame) -> None:
        """See `ClipWriter`."""
        planes = self._frames.split(self._frames.to_samples(pixels, chroma_samples=source.chroma))
        name = self._frames.pixel_format + ("le" if self._frames.bits > 8 else "")
        frame = self._av.VideoFrame(self._frames.width, self._frames.height, name)
        for plane, samples in zip(frame.planes, (planes[0], *planes[1]), strict=True):
            rows = np.frombuffer(plane, samples.dtype).reshape(plane.height, -1)
            rows[:, : plane.width] = samples
        for tag, value in self._colour_tags.items():
            setattr(frame, tag, value)
        self._seconds = self._next_time(source)
        frame.time_base = self._track.codec_context.time_base
        frame.pts = round(self._seconds / frame.time_base)
        with _as_os_error(self._av):
            self._container.mux(self._track.encode(frame))
            self._copy_sound(self._seconds)

    def finish(self) -> None:
        """Writes the frames that the encoder still holds, and the rest of the sound."""
        with _as_os_error(self._av):
            self._container.mux(self._track.encode(None))
            self._copy_sound(None)
            self._container.close()

    def _next_time(self, source: Frame) -> Fraction:
        if source.seconds is not None and (self._seconds is None or source.seconds > self._seconds):
            return source.seconds
        return Fraction(0) if self._seconds is None else self._seconds + self._period

    def _copy_sound(self, until: Fraction | None) -> None:
        """Copies the packets up to a time in seconds; None is the end."""
        while self._waiting is not None:
            packet = self._waiting
            if until is not None and packet.dts * packet.time_base > until:
                return
            self._container.mux(packet)
            self._waiting = next(self._sound, None)


@contextlib.contextmanager
def _as_os_error(av: Any) -> Iterator[None]:
    """Raises errors of PyAV, such as that of a full disk, as those of Python's files."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _abandon(av: Any, container: Any) -> None:
    """Closes a container, if it is still open, whose file is not whole and will be removed."""
    with contextlib.suppress(av.error.FFmpegError, OSError):
        container.close()


@contextlib.contextmanager
def container_writer(
    path: str, frames: PlanarFrames, clip: Clip, *, rate: Fraction, encoding: Encoding
) -> Iterator[ContainerWriter]:
    """Opens a file for writing; it appears at the end of the block.

    Args:
      path: of the file.
      frames: its format, as of `encoded_frames`.
      clip: that the frames come from. Its sound is copied.
      rate: frames per second; frames with times of their own keep these.
      encoding: of the frames.

    Raises:
      DataError: PyAV is not installed, or cannot write such a file.
      OSError: it cannot be written.
    """
    av = import_pyav(path)
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(whole_file(path))
        with _as_os_error(av):
            container = av.open(temporary, "w")
        stack.callback(_abandon, av, container)
        track = _add_track(av, container, path, frames, clip, rate=rate, encoding=encoding)
        sound: Iterator[Any] = iter(())
        if clip.has_audio:
            source = stack.enter_context(open_container(av, clip.path))
            sound = _sound(source, container)
        try:
            writer = ContainerWriter(av, container, track, frames, clip, sound)
            container.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise DataError(f"{path}: cannot hold this video ({error}); choose .mkv") from error
        yield writer
        writer.finish()


def _add_track(
    av: Any,
    container: Any,
    path: str,
    frames: PlanarFrames,
    clip: Clip,
    *,
    rate: Fraction,
    encoding: Encoding,
) -> Any:
    """Adds the video track to a container."""
    is_webm = os.path.splitext(path)[1].lower() == ".webm"
    codec = encoding.codec or ("libvpx-vp9" if is_webm else "libx264")
    options = {"crf": str(encoding.crf)} | ({"b": "0"} if codec.startswith("libvpx") else {})
    try:
        track = container.add_stream(codec, rate=rate, options=options)
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"{path}: PyAV has no encoder {codec} for it ({error}); choose another") from error
    context = track.codec_context
    track.width, track.height = frames.width, frames.height
    track.pix_fmt = frames.pixel_format + ("le" if frames.bits > 8 else "")
    context.time_base = Fraction(1, _FINEST_CLOCK)
    if clip.aspect is not None:
        context.sample_aspect_ratio = clip.aspect
    for tag, value in _colour_tags(frames, clip).items():
        setattr(context, tag, value)
    return track


def _colour_tags(frames: PlanarFrames, clip: Clip) -> dict[str, Any]:
    """What a decoder is told of the colours: what the source says, and the range in any case."""
    return {**clip.colour_tags, "color_range": _FULL_RANGE if frames.full_range else _STUDIO_RANGE}


def _sound(source: Any, container: Any) -> Iterator[Any]:
    """Adds the audio tracks of a source to a container; yields their packets for it."""
    tracks = {track.index: container.add_stream_from_template(track) for track in source.streams.audio}
    for packet in source.demux(source.streams.audio):
        if packet.dts is not None:  # the demuxer ends with an empty packet
            packet.stream = tracks[packet.stream.index]
            yield packet
