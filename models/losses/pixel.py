"""Losses between pixels: L1, L2, Charbonnier, total variation.

Every function returns [B], the mean over all other axes, in float32 or, for float64 inputs, float64.
"""

from __future__ import annotations

import tensorflow as tf

from models.networks.layers import at_least_float32


def mean_per_example(x: tf.Tensor) -> tf.Tensor:
    """Computes the mean over all axes but the first: [B, ...] -> [B]."""
    return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


def l1(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Computes the mean absolute difference: a, b [B, ...] -> [B]."""
    return mean_per_example(tf.abs(at_least_float32(a) - at_least_float32(b)))


def l2(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Computes the mean squared difference: a, b [B, ...] -> [B]."""
    return mean_per_example(tf.square(at_least_float32(a) - at_least_float32(b)))


def charbonnier(a: tf.Tensor, b: tf.Tensor, *, epsilon: float = 1e-3) -> tf.Tensor:
    """Computes the mean of sqrt((a - b)^2 + epsilon^2), an L1 that is smooth at 0: a, b [B, ...] -> [B].

    Source: Charbonnier et al., 1994 (doi:10.1109/ICIP.1994.413553); epsilon of Lai et al., arXiv 1704.03915.
    """
    squares = tf.square(at_least_float32(a) - at_least_float32(b))
    return mean_per_example(tf.sqrt(squares + epsilon**2))


def total_variation(images: tf.Tensor) -> tf.Tensor:
    """Computes the absolute differences of neighbouring pixels: [B, H, W, C] -> [B], H and W at least 2.

    It is the mean over vertical neighbours plus the mean over horizontal ones, so it does not depend on the
    image size. Source: Rudin, Osher, Fatemi, 1992; the anisotropic form.
    """
    x = at_least_float32(images)
    down = tf.abs(x[:, 1:] - x[:, :-1])  # [B, H - 1, W, C]
    right = tf.abs(x[:, :, 1:] - x[:, :, :-1])  # [B, H, W - 1, C]
    return mean_per_example(down) + mean_per_example(right)
