"""Bicubic resampling to any size, with antialiasing, on any device and differentiable."""

import numpy as np
import tensorflow as tf

from data.imaging.bicubic_kernel import cubic_kernel

_RADIUS = 2.0
"""Radius of the kernel in pixels of the coarser image."""


def resample(images: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Resizes images as Pillow's bicubic filter does on floats; the kernel widens along an axis that shrinks.

    `data.pipeline.resizing` is the same for stored images, with Pillow's rounding to whole numbers.

    Args:
      images: floating [B, H, W, C] in any range, H and W static; overshoot at edges is not clipped.
      height: new height in pixels.
      width: new width in pixels.

    Returns:
      [B, height, width, C] of the same dtype.
    """
    for axis, (old, new) in enumerate(zip(images.shape[1:3], (height, width), strict=True)):
        if old != new:
            weights = tf.constant(_weights(old, new), images.dtype)
            images = tf.einsum("bhwc,nh->bnwc" if axis == 0 else "bhwc,nw->bhnc", images, weights)
    return images


def _weights(length: int, new_length: int) -> np.ndarray:
    """Weight of each pixel for each new pixel: float64 [new_length, length], rows with sum 1."""
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale
    widening = max(scale, 1.0)
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / widening
    with tf.init_scope():  # numbers, also while a function is traced
        weights = cubic_kernel(tf.constant(np.minimum(distance, _RADIUS))).numpy()
    return weights / weights.sum(axis=1, keepdims=True)
