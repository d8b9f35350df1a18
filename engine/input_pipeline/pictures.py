"""Conversion between pictures (RGB) and what networks see: another colour space, or one-hot classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from data import imaging
from data.roles import INPUT, SIDE_MAP, TARGET


class HasColourSpace(Protocol):
    """A data set, or its description."""

    @property
    def colour_space(self) -> str:
        """One of `data.imaging.COLOUR_SPACES`, in which networks see images with 3 channels."""


def to_network(data: HasColourSpace, pictures: tf.Tensor, *, role: str = INPUT) -> tf.Tensor:
    """Converts pictures to what networks see.

    Args:
      data: its colour space is used, or its classes if it has images of this role one-hot.
      pictures: float [..., C] in [-1, 1]; 3 channels are RGB, any other number stays as it is, and so do
        side maps, which have no colour space.
      role: of the images in a batch whose place the pictures take.

    Returns:
      Float [..., C] in [-1, 1]; or [..., K] with 0 and 1 for K classes.
    """
    if (classes := _one_hot(data).get(role)) is not None:
        return classes.encode(pictures, low=-1.0, high=1.0)
    if pictures.shape[-1] != 3 or role == SIDE_MAP:
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


def to_picture(data: HasColourSpace, images: tf.Tensor, *, role: str = TARGET) -> tf.Tensor:
    """Converts inputs or outputs of networks to pictures, for display and metrics.

    Args:
      data: as in `to_rgb`.
      images: as in `to_rgb`; or one-hot, if the data has images of this role one-hot.
      role: of the images in a batch. Outputs of networks are like targets.

    Returns:
      uint8 [..., C]; 3 channels are RGB, and colours outside RGB are clipped.
    """
    if (classes := _one_hot(data).get(role)) is not None:
        return classes.decode(images)
    return imaging.to_uint8(to_rgb(data, images))


def map_to_picture(data: HasColourSpace, maps: tf.Tensor) -> tf.Tensor:
    """Converts side maps to pictures. A map has no colour space to convert from.

    Args:
      data: the classes of its maps are used if those are one-hot.
      maps: float [..., C] in [-1, 1]; or one-hot.

    Returns:
      uint8 [..., C]; class ids are grey levels that are far apart, classes with colours have them.
    """
    classes = _one_hot(data).get(SIDE_MAP)
    if classes is None:
        return imaging.to_uint8(maps)
    return classes.decode_apart(maps) if len(classes.classes[0]) == 1 else classes.decode(maps)


def _one_hot(data: HasColourSpace) -> Mapping[str, imaging.OneHot]:
    """The classes of one-hot images by role; most kinds of data have none."""
    return getattr(data, "one_hot", {})
