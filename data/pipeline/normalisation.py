"""The last step of the pipeline: from batches as stored to what networks see.

That is float32 in [-1, 1], in the colour space wanted; or one-hot, where the values are classes.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from data import imaging
from data.errors import DataError
from data.imaging import OneHot
from data.pipeline.example_decoder import ImageSource
from data.roles import SIDE_MAP


def check_channels(sources: Sequence[Mapping[str, ImageSource]], colour_space: str, *, where: str) -> None:
    """Raises DataError if an image without red, green and blue is to become another colour space.

    Args:
      sources: for each stream, role -> `ImageSource`.
      colour_space: one of `imaging.COLOUR_SPACES`.
      where: directory of the data set, for the message.
    """
    if colour_space == "rgb":
        return
    for role, source in (item for of_stream in sources for item in of_stream.items()):
        if source.channels != 3 and role != SIDE_MAP:
            raise DataError(
                f"{where}: colour_space = {colour_space!r} needs images of 3 channels, but the {role} "
                f"(feature {source.feature!r}) has {source.channels}; set colour_space to 'rgb', which "
                "leaves images as they are"
            )


def normalise(
    batches: tf.data.Dataset,
    *,
    ranges: Mapping[str, tuple[float, float]],
    colour_space: str,
    one_hot: Mapping[str, OneHot],
) -> tf.data.Dataset:
    """Maps images of the stored dtype to float32 in [-1, 1], and some images of classes to one-hot images.

    This is done last, because the stored dtypes take less memory.

    Args:
      batches: of {role: [B, H, W, C]}; other keys stay as they are.
      ranges: role -> (lowest, highest) value, which become -1 and 1.
      colour_space: one of `imaging.COLOUR_SPACES`, for all images but maps.
      one_hot: role -> the classes of the images that become one-hot.
    """

    def normalised(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        signed = {
            role: one_hot[role].encode(batch[role], low=low, high=high)
            if role in one_hot
            else imaging.range_to_signed(batch[role], low=low, high=high)
            for role, (low, high) in ranges.items()
        }
        if colour_space != "rgb":  # RGB may have any number of channels
            signed |= {
                role: imaging.rgb_to_space(images, colour_space)
                for role, images in signed.items()
                if role != SIDE_MAP
            }
        return batch | signed

    # Converting to another colour space takes as long as decoding.
    parallel = 1 if colour_space == "rgb" else tf.data.AUTOTUNE
    return batches.map(normalised, num_parallel_calls=parallel).prefetch(1)
