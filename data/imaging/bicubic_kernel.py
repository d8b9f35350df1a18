"""The kernel of bicubic resampling, for `data.imaging.upsampling` and `data.pipeline.resizing`."""

import tensorflow as tf


def cubic_kernel(distance: tf.Tensor) -> tf.Tensor:
    """Keys's kernel with a = -0.5, as in Pillow's bicubic filter.

    Source: Keys, Cubic convolution interpolation for digital image processing, IEEE ASSP 29 (1981).

    Args:
      distance: between an input and the position to interpolate, in inputs; floating, any shape, at least 0.

    Returns:
      The weight of the input before normalisation, of the same shape and dtype; 0 from distance 2.
    """
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((2.5 - 0.5 * distance) * distance - 4.0) * distance + 2.0
    return tf.where(distance < 1.0, near, tf.where(distance < 2.0, far, 0.0))
