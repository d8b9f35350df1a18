"""The flags that say how raw video is read, of `data.prepare` and `engine.translate`."""

from __future__ import annotations

from absl import flags

from data.formats.chroma import LOCATIONS
from data.formats.planar_frames import COLOURS, PIXEL_FORMATS
from data.formats.raw_video import VideoFormat
from data.imaging.ycbcr import LUMA_WEIGHTS
from data.preparation.number_pairs import parse_pair

_ENUMS = (
    ("pixel_format", PIXEL_FORMATS, "Planes and bits of .yuv files."),
    ("colours", COLOURS, "Convert frames to RGB, or keep all planes, or keep luma only."),
    ("matrix", LUMA_WEIGHTS, "Matrix of the conversion to RGB."),
    ("chroma_location", LOCATIONS, "Position of chroma in 4:2:0 .yuv files: left in MPEG-2 and later, center "
     "in JPEG."),
)  # fmt: skip


def define_video_flags(values: flags.FlagValues) -> None:
    """Defines the flags: --video_size, --video_pixel_format, ..."""
    flags.DEFINE_string("video_size", None, "WIDTHxHEIGHT of the frames of .yuv files.", flag_values=values)
    for name, choices, text in _ENUMS:
        default = getattr(VideoFormat(), name)
        flags.DEFINE_enum(f"video_{name}", default, list(choices), text, flag_values=values)
    flags.DEFINE_bool(
        "video_full_range", False, "Values cover the whole range of the bits.", flag_values=values
    )


def video_format(values: flags.FlagValues) -> VideoFormat:
    """What the flags say.

    Raises:
      DataError: the size is not WIDTHxHEIGHT.
    """
    return VideoFormat(
        size=parse_pair("video_size", values.video_size, "x", int),
        full_range=values.video_full_range,
        **{name: values[f"video_{name}"].value for name, *_ in _ENUMS},
    )
