"""From batches as they are stored to batches as networks want them."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from data import imaging
from data.errors import DataError
from data.pipeline.example_stream import ImageSource
from data.roles import SIDE_MAP


def check_channels(sides: Sequence[Mapping[str, ImageSource]], colour_space: str, *, where: str) -> None:
    """Raises DataError for images that have no red, green and blue to make another colour space of."""
    if colour_space == "rgb":
        return
    for role, side in (item for of_stream in sides for item in of_stream.items()):
        if side.channels != 3 and role != SIDE_MAP:
            raise DataError(
                f"{where}: colour_space = {colour_space!r} needs images of 3 channels, but the {role} "
                f"(feature {side.feature!r}) has {side.channels}; set colour_space to 'rgb', which leaves "
                "images as they are."
            )


def delivered(
    batches: tf.data.Dataset, *, ranges: Mapping[str, tuple[float, float]], colour_space: str
) -> tf.data.Dataset:
    """Images of the stored dtype, small to keep and to move, become float32 at the last moment.

    Args:
        batches: of {role: [B, H, W, C]} and more, which stays as it is.
        ranges: role -> (lowest, highest) value, which become -1 and 1.
        colour_space: that all images but maps are given in, one of `imaging.COLOUR_SPACES`.
    """

    def to_signed(batch):
        signed = {
            role: imaging.range_to_signed(batch[role], low=low, high=high)
            for role, (low, high) in ranges.items()
        }
        if colour_space != "rgb":  # RGB may have any number of channels
            signed |= {
                role: imaging.rgb_to_space(images, colour_space)
                for role, images in signed.items()
                if role != SIDE_MAP
            }
        return batch | signed

    # Another space takes as long as decoding.
    parallel = 1 if colour_space == "rgb" else tf.data.AUTOTUNE
    return batches.map(to_signed, num_parallel_calls=parallel).prefetch(1)
