"""Losses between pixels: L1, L2, Charbonnier, total variation.

Every function takes floating [B, ...] and gives [B], the mean over all other axes, in float32 or, for
float64 inputs, float64.
"""

import tensorflow as tf

from models.networks.layers import at_least_float32


def mean_per_example(x):
    """Mean over all axes but the first: [B, ...] -> [B]."""
    return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))


def l1(a, b):
    """Mean absolute difference of each example: a, b [B, ...] -> [B]."""
    return mean_per_example(tf.abs(at_least_float32(a) - at_least_float32(b)))


def l2(a, b):
    """Mean squared difference of each example: a, b [B, ...] -> [B]."""
    return mean_per_example(tf.square(at_least_float32(a) - at_least_float32(b)))


def charbonnier(a, b, *, epsilon=1e-3):
    """Mean of sqrt((a - b)^2 + epsilon^2), an L1 that is smooth at 0: a, b [B, ...] -> [B].

    Source: Charbonnier et al., 1994 (doi:10.1109/ICIP.1994.413553); epsilon of Lai et al., arXiv 1704.03915.
    """
    squares = tf.square(at_least_float32(a) - at_least_float32(b))
    return mean_per_example(tf.sqrt(squares + epsilon**2))


def total_variation(images):
    """Absolute differences of neighbours, down and right: [B, H, W, C] -> [B], H and W at least 2.

    The mean over vertical neighbours plus the mean over horizontal ones, so that it does not grow with the
    image. Source: Rudin, Osher, Fatemi, 1992; the anisotropic form.
    """
    x = at_least_float32(images)
    down = tf.abs(x[:, 1:] - x[:, :-1])  # [B, H - 1, W, C]
    right = tf.abs(x[:, :, 1:] - x[:, :, :-1])  # [B, H, W - 1, C]
    return mean_per_example(down) + mean_per_example(right)
