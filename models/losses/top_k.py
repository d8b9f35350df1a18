"""Top-k training of a generator: a loss that couples the examples of a batch."""

from __future__ import annotations

import tensorflow as tf

from engine.task import Step


def top_k(values: tf.Tensor, scores: tf.Tensor, step: Step, *, fraction: float | tf.Tensor) -> tf.Tensor:
    """Keeps only the losses of the examples with the best scores.

    Source: Sinha et al., arXiv 2002.06224, whose fraction falls from 1 to 0.5 by a factor of 0.99 an epoch.

    It keeps the k best examples of all replicas, k = ceil(fraction * examples); of equal ones the first. With
    gradient accumulation each micro-batch keeps its own best, so the result depends on the micro-batch size,
    unlike all other losses here. It does not depend on the number of replicas. It communicates, so every
    replica must call it, outside of any condition.

    Args:
      values: [B], losses of this replica's examples.
      scores: [B], how real each fake looks, such as its mean logit; no gradient flows through them.
      step: the argument of the loss.
      fraction: of the examples, in (0, 1]; a scalar, or a tensor that depends on `step.examples`.

    Returns:
      [B]: values * examples / k, or 0, so that the mean over the batch is that of the k best.
    """
    all_scores = step.gather(tf.stop_gradient(scores))  # [examples]
    examples = tf.shape(all_scores)[0]
    wanted = fraction * tf.cast(examples, all_scores.dtype)
    k = tf.cast(tf.math.ceil(wanted - 1e-3), tf.int32)  # 0.1 * 10 is above 1 in floating point
    k = tf.clip_by_value(k, 1, examples)
    order = tf.range(examples)
    is_equal = all_scores == all_scores[:, None]
    is_ahead = (all_scores > all_scores[:, None]) | (is_equal & (order < order[:, None]))
    rank = tf.reduce_sum(tf.cast(is_ahead, tf.int32), axis=1)  # [examples], 0 for the best
    factors = tf.cast(rank < k, values.dtype) * tf.cast(examples, values.dtype) / tf.cast(k, values.dtype)
    return values * step.own(factors)
