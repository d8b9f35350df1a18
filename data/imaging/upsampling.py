"""Bicubic enlargement of pictures, on any device and differentiable."""

import tensorflow as tf

from data.imaging.bicubic_kernel import cubic_kernel

_REACH = 2
"""Pixels of the small picture that count on either side of a place."""


def enlarge(images, *, height, width):
    """Enlarges as Pillow's bicubic filter does: Keys's kernel with a = -0.5, less weight beyond the edge.

    Each output is a sum of four inputs along each axis. TensorFlow's own bicubic kernels run on CPUs only.

    Args:
        images: floating [B, H, W, C] of any range; the kernel overshoots it at edges, which is not clipped.
        height, width: new size in pixels, ints or int32 scalars, no smaller than H and W.

    Returns:
        [B, height, width, C] of the same dtype.
    """
    images = _along(images, height, axis=1)
    return _along(images, width, axis=2)


def _along(images, new_length, *, axis):
    """One axis enlarged."""
    length = tf.shape(images)[axis]
    dtype = tf.float64 if images.dtype == tf.float64 else tf.float32
    scale = tf.cast(length, dtype) / tf.cast(new_length, dtype)
    centres = (tf.range(new_length, dtype=dtype) + 0.5) * scale - 0.5  # [new_length]
    first = tf.cast(tf.floor(centres), tf.int32) - (_REACH - 1)
    inputs = first[:, None] + tf.range(2 * _REACH)  # [new_length, 4]
    distance = tf.abs(tf.cast(inputs, dtype) - centres[:, None])
    weights = tf.where((inputs >= 0) & (inputs < length), cubic_kernel(distance), 0.0)
    weights = tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), images.dtype)
    inputs = tf.clip_by_value(inputs, 0, length - 1)
    shape = [-1 if place == axis else 1 for place in range(4)]
    return tf.add_n(
        [
            tf.gather(images, inputs[:, tap], axis=axis) * tf.reshape(weights[:, tap], shape)
            for tap in range(2 * _REACH)
        ]
    )
