"""The moments of the batches of all replicas: one collective for a layer, and one for its gradient.

Each replica computes the moments of its own rows in two passes, the mean first. They are combined by the
formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
variances", 1979):

    n = sum n_r,    mean = sum n_r mean_r / n,    n variance = sum (n_r variance_r + n_r (mean_r - mean)^2)

Nothing cancels as in E[x^2] - E[x]^2: rounding, by a factor of 1 + e, changes the variance by about
2 e mean |mean_r - mean|, not by e mean^2.

A layer cannot share its collective with the next one, whose input depends on these moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from engine.replica_context import gather_from_replicas, replica_count, sum_over_replicas


class BatchMoments(NamedTuple):
    """The moments of a batch [..., B, H, W, C], for each channel.

    Attributes:
      centred: the batch minus the mean, [..., B, H, W, C].
      variance: the biased one, [..., 1, 1, 1, C].
      mean: [..., 1, 1, 1, C].
      count: positions that they are taken over, all dimensions 1.
    """

    centred: tf.Tensor
    variance: tf.Tensor
    mean: tf.Tensor
    count: tf.Tensor


def batch_moments(x: tf.Tensor, weights: tf.Tensor) -> BatchMoments:
    """Computes the moments over B, H and W, and over all replicas (in replica context).

    Each example has the same weight, however many a replica has. They are differentiable any number of times.

    Args:
      x: [..., B, H, W, C] of this replica. Batches along the axes before B have moments of their own, and
        share the collective.
      weights: [B] of the dtype of x, 1 for the rows that are examples, 0 for padding.
    """
    weights = tf.reshape(weights, [1] * (x.shape.rank - 4) + [-1, 1, 1, 1])  # [..., B, 1, 1, 1]
    if replica_count() == 1:
        return _own_moments(x, weights)

    @tf.custom_gradient
    def over_replicas(x: tf.Tensor) -> tuple[BatchMoments, Callable[..., tf.Tensor]]:
        own = _own_moments(x, weights)
        mean, variance, count = _combined(own)
        centred = x - mean

        def gradient(
            of_centred: tf.Tensor, of_variance: tf.Tensor, of_mean: tf.Tensor, of_count: tf.Tensor
        ) -> tf.Tensor:
            del of_count  # does not depend on x
            of_mean = of_mean - tf.reduce_sum(of_centred, [-4, -3, -2], keepdims=True)
            # The variance does not depend on the mean, of which it is a minimum. All is a function of tensors
            # that depend on x, so that it can be differentiated again.
            of_mean, of_variance = tf.unstack(sum_over_replicas(tf.stack([of_mean, of_variance])))
            share = weights / count  # [..., B, 1, 1, 1]
            return of_centred + share * of_mean + (2 * share * of_variance) * centred

        return BatchMoments(centred, variance, mean, count), gradient

    return BatchMoments(*over_replicas(x))


def _own_moments(x: tf.Tensor, weights: tf.Tensor) -> BatchMoments:
    """The moments of this replica's rows, in two passes; zeros of a replica without an example."""

    def total(values: tf.Tensor) -> tf.Tensor:
        # The weights after the positions, of which there are many more than rows.
        of_rows = tf.reduce_sum(values, [-3, -2], keepdims=True)  # [..., B, 1, 1, C]
        return tf.reduce_sum(weights * of_rows, -4, keepdims=True)  # [..., 1, 1, 1, C]

    positions = tf.cast(tf.shape(x)[-3] * tf.shape(x)[-2], x.dtype)
    count = positions * tf.reduce_sum(weights, -4, keepdims=True)
    mean = total(x) / tf.maximum(count, 1)
    centred = x - mean
    return BatchMoments(centred, total(tf.square(centred)) / tf.maximum(count, 1), mean, count)


def _combined(own: BatchMoments) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The mean, variance and count over all replicas."""
    parts = own.mean, own.variance, own.count
    sizes = [part.shape.num_elements() for part in parts]
    row = tf.concat([tf.reshape(part, [-1]) for part in parts], 0)
    rows = tf.split(gather_from_replicas(row), sizes, axis=1)
    means, variances, counts = (
        tf.reshape(values, [-1, *part.shape]) for values, part in zip(rows, parts, strict=True)
    )  # [replicas, ...]
    count = tf.reduce_sum(counts, 0)
    shares = counts / count
    mean = tf.reduce_sum(shares * means, 0)
    return mean, tf.reduce_sum(shares * (variances + tf.square(means - mean)), 0), count
