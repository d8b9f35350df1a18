"""Random rectangles: the parts that crops cut out of an image."""

import math
from typing import NamedTuple

import tensorflow as tf

_ATTEMPTS = 10


class Box(NamedTuple):
    """A rectangle in pixels: int32 scalars."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def draw_shape_and_position(
    seed: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draws a rectangle of random shape at a random position, as torchvision's RandomResizedCrop does.

    Args:
      seed: int64 [2].
      height: of the image in pixels.
      width: of the image in pixels.
      scale: smallest and largest area, as a fraction of the image's.
      ratio: smallest and largest width / height.
    """
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    # float64 and tf.round (halves to even) give exactly the boxes of torchvision's arithmetic.
    h, w = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    seeds = tf.unstack(tf.random.split(seed, 4))
    shape, dtype = [_ATTEMPTS], tf.float64
    area = h * w * tf.random.stateless_uniform(shape, seeds[0], *scale, dtype)
    low, high = ratio
    ratios = tf.exp(tf.random.stateless_uniform(shape, seeds[1], math.log(low), math.log(high), dtype))
    widths = tf.cast(tf.round(tf.sqrt(area * ratios)), tf.int32)  # [attempts]
    heights = tf.cast(tf.round(tf.sqrt(area / ratios)), tf.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, any_fits = tf.argmax(tf.cast(fits, tf.int32)), tf.reduce_any(fits)

    # If none fits: centred, as wide and as high as the ratio allows.
    widest = tf.cast(tf.round(tf.minimum(w, h * high)), tf.int32)
    highest = tf.cast(tf.round(tf.minimum(h, w / low)), tf.int32)
    part_width = tf.where(any_fits, widths[first], tf.maximum(widest, 1))
    part_height = tf.where(any_fits, heights[first], tf.maximum(highest, 1))
    top = _random_below(seeds[2], height - part_height + 1)
    left = _random_below(seeds[3], width - part_width + 1)
    return Box(
        tf.where(any_fits, top, (height - part_height) // 2),
        tf.where(any_fits, left, (width - part_width) // 2),
        part_height,
        part_width,
    )


def draw_position(
    seed: tf.Tensor, rows: int | tf.Tensor, columns: int | tf.Tensor, size: tuple[int, int]
) -> Box:
    """Draws where a rectangle of a size (height, width) lies in a padded image, for a seed int64 [2]."""
    # The draw must wait for the assertion, or it would fail first, with an unclear message.
    fits = tf.debugging.assert_less_equal(
        tf.stack(size), tf.stack([rows, columns]), "the crop is larger than the padded image"
    )
    with tf.control_dependencies([] if fits is None else [fits]):
        seeds = tf.unstack(tf.random.split(seed, 2))
    top = _random_below(seeds[0], rows - size[0] + 1)
    left = _random_below(seeds[1], columns - size[1] + 1)
    return Box(top, left, tf.convert_to_tensor(size[0]), tf.convert_to_tensor(size[1]))


def _random_below(seed: tf.Tensor, limit: int | tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, 0, limit, tf.int32)
