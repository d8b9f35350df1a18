"""Conversion between pictures (RGB) and the colour space in which networks see images."""

from __future__ import annotations

import tensorflow as tf

from data import imaging
from engine.training_data import TrainingData


def to_network(data: TrainingData, pictures: tf.Tensor) -> tf.Tensor:
    """Converts pictures to the data set's colour space.

    Args:
      data: its colour space is used.
      pictures: float [..., C] in [-1, 1]; 3 channels are RGB, any other number stays as it is.

    Returns:
      Float [..., C] in [-1, 1].
    """
    if pictures.shape[-1] != 3:
        return pictures
    return imaging.rgb_to_space(pictures, data.colour_space)


def to_picture(data: TrainingData, images: tf.Tensor) -> tf.Tensor:
    """Converts inputs or outputs of networks to pictures, for display and metrics.

    Args:
      data: its colour space is used.
      images: float [..., C] in [-1, 1]; 3 channels are in the data set's colour space, any other number stays
        as it is.

    Returns:
      uint8 [..., C]; 3 channels are RGB, and colours outside RGB are clipped.
    """
    if images.shape[-1] == 3:
        images = tf.cast(images, tf.float64 if images.dtype == tf.float64 else tf.float32)
        images = imaging.space_to_rgb(images, data.colour_space)
    return imaging.to_uint8(images)
