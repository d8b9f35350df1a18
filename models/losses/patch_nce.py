"""PatchNCE: a patch of the output tells its own patch of the input from the others (CUT)."""

import tensorflow as tf

from models.networks.layers import at_least_float32

_SMALLEST_NORM = 1e-7


def patch_nce(queries, keys, *, temperature=0.07):
    """Cross entropy of finding each query's key among all keys of its example, by cosine similarity.

    Query p belongs to key p; the other keys of the same example are the negatives, those of other examples
    are not looked at. log(P) for P patches where nothing is learnt. Source: Park et al., arXiv 2007.15651,
    equations 3 and 4.

    Args:
      queries: features of the output, [B, P, C] of any length; a vector shorter than 1e-7 is not scaled to 1.
      keys: features of the input at the same places, [B, P, C]; they are a target and give no gradient.
      temperature: divides the similarities, above 0.

    Returns:
      [B], the mean over the P patches.
    """
    queries, keys = _unit(queries), tf.stop_gradient(_unit(keys))
    similarities = tf.matmul(queries, keys, transpose_b=True) / temperature  # [B, P, P]
    own = tf.reduce_sum(queries * keys, axis=2) / temperature  # [B, P], the diagonal
    return tf.reduce_mean(tf.reduce_logsumexp(similarities, axis=2) - own, axis=1)


def _unit(vectors):
    # The smallest norm keeps the gradient of a row of zeros finite: padding examples have such rows.
    return tf.math.l2_normalize(at_least_float32(vectors), axis=-1, epsilon=_SMALLEST_NORM**2)
