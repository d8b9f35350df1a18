"""Losses between predicted labels and their targets: numbers, or classes.

Every function returns [B] in float32 or, for float64 inputs, float64. MSE and MAE of numbers are
`models.losses.l2` and `models.losses.l1`.
"""

from __future__ import annotations

import tensorflow as tf

from models.losses.pixel import mean_per_example
from models.networks.layers import at_least_float32


def huber(a: tf.Tensor, b: tf.Tensor, *, delta: float = 1.0) -> tf.Tensor:
    """Computes Huber's loss, averaged over the numbers: a, b [B, K] -> [B].

    It is half the square of differences up to delta, and delta (|difference| - delta / 2) beyond. Source:
    Huber 1964 (doi:10.1214/aoms/1177703732).
    """
    error = tf.abs(at_least_float32(a) - at_least_float32(b))
    inner = tf.minimum(error, delta)
    return mean_per_example(inner * (error - 0.5 * inner))


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float = 0.0) -> tf.Tensor:
    """Computes the cross-entropy of one-hot targets with softmax(logits), in nats: [B, K] each -> [B].

    Args:
      logits: [B, K].
      targets: one-hot [B, K].
      label_smoothing: share of the target's probability that is spread over all K classes (Szegedy et al.,
        arXiv 1512.00567).
    """
    logits = at_least_float32(logits)
    targets = tf.cast(targets, logits.dtype)
    classes = tf.cast(tf.shape(logits)[-1], logits.dtype)
    smooth = targets * (1.0 - label_smoothing) + label_smoothing / classes
    return -tf.reduce_sum(smooth * tf.nn.log_softmax(logits), axis=-1)
