"""Bicubic upsampling, on any device and differentiable."""

import tensorflow as tf

from data.imaging.bicubic_kernel import cubic_kernel

_RADIUS = 2
"""Radius of the kernel in input pixels."""


def enlarge(images: tf.Tensor, *, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Enlarges images as Pillow's bicubic filter does: Keys's kernel, renormalised at the border.

    On float32 images in [0, 1], a value differs from Pillow's by less than 0.0001, from rounding.

    Each output is a weighted sum of four inputs along each axis. TensorFlow's own bicubic operations run on
    CPUs only. In `data.pipeline.resizing`, which also shrinks, the same kernel is applied with other
    roundings.

    Args:
      images: floating [B, H, W, C] in any range; overshoot at edges is not clipped.
      height: new height in pixels, int or int32 scalar, at least H.
      width: new width in pixels, at least W.

    Returns:
      [B, height, width, C] of the same dtype.
    """
    images = _along(images, height, axis=1)
    return _along(images, width, axis=2)


def _along(images: tf.Tensor, new_length: int | tf.Tensor, *, axis: int) -> tf.Tensor:
    """Enlarges one axis."""
    length = tf.shape(images)[axis]
    dtype = tf.float64 if images.dtype == tf.float64 else tf.float32
    scale = tf.cast(length, dtype) / tf.cast(new_length, dtype)
    centres = (tf.range(new_length, dtype=dtype) + 0.5) * scale - 0.5  # [new_length]
    first = tf.cast(tf.floor(centres), tf.int32) - (_RADIUS - 1)
    inputs = first[:, None] + tf.range(2 * _RADIUS)  # [new_length, 4]
    distance = tf.abs(tf.cast(inputs, dtype) - centres[:, None])
    weights = tf.where((inputs >= 0) & (inputs < length), cubic_kernel(distance), 0.0)
    weights = tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), images.dtype)
    inputs = tf.clip_by_value(inputs, 0, length - 1)
    shape = [-1 if k == axis else 1 for k in range(4)]
    return tf.add_n(
        [
            tf.gather(images, inputs[:, tap], axis=axis) * tf.reshape(weights[:, tap], shape)
            for tap in range(2 * _RADIUS)
        ]
    )
