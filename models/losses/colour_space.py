"""Colour spaces in which losses can compare images."""

from __future__ import annotations

import tensorflow as tf

from data import imaging
from models.networks.layers import at_least_float32


def to_colour_space(images: tf.Tensor, space: str) -> tf.Tensor:
    """Converts RGB to another colour space, scaled as by `data.imaging.rgb_to_space`; differentiable.

    Args:
      images: [B, H, W, 3] in [-1, 1]; half precision becomes float32.
      space: one of `data.imaging.COLOUR_SPACES`; "rgb" changes nothing and takes any number of channels.

    Returns:
      [B, H, W, 3].

    Raises:
      ValueError: the colour space is unknown.
    """
    images = at_least_float32(images)
    if space == "rgb":
        return images
    return imaging.rgb_to_space(images, space)
