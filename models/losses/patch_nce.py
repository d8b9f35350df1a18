"""PatchNCE, the contrastive loss of CUT."""

from __future__ import annotations

import tensorflow as tf

from models.networks.layers import at_least_float32

_ADDED_TO_NORM = 1e-7
"""Added to the length of a vector before dividing by it, as in the reference (its `Normalize`)."""

_SMALLEST_SQUARE = 1e-30
"""Keeps the gradient of the root finite for a row of zeros, such as padding; its root is far below 1e-7."""


def patch_nce(queries: tf.Tensor, keys: tf.Tensor, *, temperature: float = 0.07) -> tf.Tensor:
    """Computes the cross-entropy of finding each query's key among all keys, by cosine similarity.

    Query p belongs to key p; the other keys of the same example are the negatives. Without learning it is
    log(P) for P patches. Source: Park et al., arXiv 2007.15651, equations 3 and 4; the small number in the
    normalisation is that of the authors' code (taesungp/contrastive-unpaired-translation). It matters for
    vectors shorter than about 1e-5, which the first steps have.

    Args:
      queries: features of the output, [B, P, C]. The loss divides vectors by their length + 1e-7.
      keys: features of the input at the same positions, [B, P, C]; no gradient flows through them.
      temperature: divides the similarities; above 0.

    Returns:
      [B], the mean over the patches.
    """
    queries, keys = _unit(queries), tf.stop_gradient(_unit(keys))
    similarities = tf.matmul(queries, keys, transpose_b=True) / temperature  # [B, P, P]
    positives = tf.reduce_sum(queries * keys, axis=2) / temperature  # [B, P], the diagonal
    return tf.reduce_mean(tf.reduce_logsumexp(similarities, axis=2) - positives, axis=1)


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    vectors = at_least_float32(vectors)
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)  # [B, P, 1]
    return vectors / (tf.sqrt(tf.maximum(squares, _SMALLEST_SQUARE)) + _ADDED_TO_NORM)
