"""What the flags of engine.translate say about video."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

from absl import flags

from data.formats.raw_video import VideoFormat
from data.preparation.video_flags import define_video_flags, video_format
from data.video.container_writer import Encoding
from engine.errors import ConfigurationError

_OF_PICTURES = "side_map samples raw compare target skip_existing".split()
_UNSET = (None, False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How videos are read and written.

    Attributes:
      format: what files do not say themselves; with `colours`, what networks see of frames.
      rate: frames per second of a video whose frames have no time, such as those of a folder or a .yuv file;
        None is 25.
      encoding: of .mp4 and other containers.
    """

    format: VideoFormat = dataclasses.field(default_factory=VideoFormat)
    rate: Fraction | None = None
    encoding: Encoding = dataclasses.field(default_factory=Encoding)


def define_settings(values: flags.FlagValues) -> None:
    """Defines the flags."""
    define_video_flags(values)
    flags.DEFINE_string(
        "video_rate",
        None,
        "Frames per second, such as 25 or 30000/1001, where the input states none.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "video_codec", None, "Encoder of FFmpeg; libx264, or libvpx-vp9 in .webm.", flag_values=values
    )
    flags.DEFINE_integer(
        "video_crf", Encoding().crf, "Quality of the encoder: lower is better.", flag_values=values
    )


def settings_of(values: flags.FlagValues) -> VideoSettings:
    """What the flags say.

    Raises:
      data.errors.DataError, ConfigurationError: a value is malformed.
    """
    return VideoSettings(
        format=video_format(values),
        rate=_rate(values.video_rate),
        encoding=Encoding(codec=values.video_codec, crf=values.video_crf),
    )


def check_video_flags(given: Mapping[str, object], *, makes_video: bool) -> None:
    """Checks which flags of engine.translate go with a video, or with pictures.

    Args:
      given: all flags, by name; "video" holds the `VideoSettings`.
      makes_video: whether a video is translated, or made of pictures.

    Raises:
      ConfigurationError: one does not go with it.
    """
    if not makes_video:
        if given["video"] not in (None, VideoSettings()):
            raise ConfigurationError(
                "--video_...: such flags are for video, but neither --input nor --output is one; leave them "
                "out"
            )
        return
    for name in _OF_PICTURES:
        value = given[name]
        if value not in _UNSET:
            shown = f"--{name}" if value is True else f"--{name}={value}"
            raise ConfigurationError(f"{shown}: is for pictures, not for video; leave it out")
    if given["format"] != "png":
        raise ConfigurationError(
            f"--format={given['format']}: is for pictures; a video has the format that --output ends in, "
            "and frames in a folder are PNG"
        )


def _rate(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise ConfigurationError(
            f"--video_rate={text}: must be frames per second, such as 25 or 30000/1001; change it"
        )
    return rate
