"""Raw planar video, .yuv and .y4m: frames read as pictures."""

import dataclasses

from data.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """How raw planar video is read.

    Args:
        size: (width, height) in pixels of the frames of .yuv files; a .y4m says it itself.
        pixel_format: "yuv420p", "yuv444p", or with 10 bits in little-endian 16-bit words "yuv420p10",
            "yuv444p10", of .yuv files; a .y4m says it itself.
        colours: "rgb": converted, chroma upsampled; "ycbcr": the planes as they are, chroma repeated to
            full size, 3 channels; "y": luma as it is, 1 channel.
        matrix: "bt601" or "bt709", of the conversion to RGB.
        full_range: whether the values cover the whole range of the bits; else the studio range.
    """

    size: tuple[int, int] | None = None
    pixel_format: str = "yuv420p"
    colours: str = "rgb"
    matrix: str = "bt601"
    full_range: bool = False


def is_video_name(path):
    """Whether the name is that of a raw video."""
    return path.lower().endswith((".yuv", ".y4m"))


def number_of_frames(path, video):
    """Gives the number of frames of a raw video."""
    raise DataError(f"{path}: raw video is not read yet.")
