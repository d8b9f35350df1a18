"""Pictures as people see them, and as networks take them: the data set's colour space."""

from __future__ import annotations

import tensorflow as tf

from data import imaging
from engine.training_data import TrainingData


def to_network(data: TrainingData, pictures: tf.Tensor) -> tf.Tensor:
    """RGB (or any other number of channels than 3) as the networks take it: float [..., C] in [-1, 1]."""
    if pictures.shape[-1] != 3:
        return pictures
    return imaging.rgb_to_space(pictures, data.colour_space)


def to_picture(data: TrainingData, images: tf.Tensor) -> tf.Tensor:
    """What networks take or make, as it is shown and measured.

    Args:
      images: float [..., C] in [-1, 1]; 3 channels are those of the data's colour space, others are taken
        as they are.

    Returns:
      uint8 [..., C]; 3 channels are RGB. Colours beyond it are clipped.
    """
    if images.shape[-1] == 3:
        images = tf.cast(images, tf.float64 if images.dtype == tf.float64 else tf.float32)
        images = imaging.space_to_rgb(images, data.colour_space)
    return imaging.to_uint8(images)
