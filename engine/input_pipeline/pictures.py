"""Conversion between pictures (RGB) and the colour space in which networks see images."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from data import imaging


class HasColourSpace(Protocol):
    """A data set, or its description."""

    @property
    def colour_space(self) -> str:
        """One of `data.imaging.COLOUR_SPACES`, in which networks see images with 3 channels."""


def to_network(data: HasColourSpace, pictures: tf.Tensor) -> tf.Tensor:
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


def to_rgb(data: HasColourSpace, images: tf.Tensor) -> tf.Tensor:
    """Converts inputs or outputs of networks to pictures that are not rounded yet.

    Args:
      data: its colour space is used.
      images: float [..., C] in [-1, 1]; 3 channels are in the data set's colour space, any other number stays
        as it is.

    Returns:
      Float [..., C], from -1 for black to 1 for white; colours outside RGB are not clipped.
    """
    if images.shape[-1] != 3:
        return images
    images = tf.cast(images, tf.float64 if images.dtype == tf.float64 else tf.float32)
    return imaging.space_to_rgb(images, data.colour_space)


def to_picture(data: HasColourSpace, images: tf.Tensor) -> tf.Tensor:
    """Converts inputs or outputs of networks to pictures, for display and metrics.

    Args:
      data: as in `to_rgb`.
      images: as in `to_rgb`.

    Returns:
      uint8 [..., C]; 3 channels are RGB, and colours outside RGB are clipped.
    """
    return imaging.to_uint8(to_rgb(data, images))
