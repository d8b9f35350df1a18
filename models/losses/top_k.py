"""Losses that couple the examples of a batch. They are not the same in micro-batches."""

import tensorflow as tf


def top_k(values, scores, step, *, share):
    """Keeps the losses of the examples that score best, so that a generator learns from those alone.

    Source: Sinha et al., arXiv 2002.06224, who let the share fall from 1 to 0.5 by 0.99 an epoch.

    The k best of all replicas are kept, k = ceil(share * examples); of equal ones the first. This couples
    examples: under accumulation each micro-batch keeps its own best, so that, unlike any other loss here, the
    result depends on the largest micro-batch. It does not depend on the number of replicas. It
    communicates, so every replica has to call it, outside of any condition.

    Args:
      values: [B], losses of this replica's examples.
      scores: [B], how real each fake looks, such as its mean logit; gives no gradient.
      step: the `Step` the loss was given.
      share: of the examples, in (0, 1]; a scalar, or a tensor that follows `step.examples`.

    Returns:
      [B]: values * examples / k, or 0, so that the mean over the batch is that of the k best.
    """
    everyone = step.gather(tf.stop_gradient(scores))  # [examples]
    examples = tf.shape(everyone)[0]
    wanted = share * tf.cast(examples, everyone.dtype)
    k = tf.cast(tf.math.ceil(wanted - 1e-3), tf.int32)  # 0.1 * 10 is above 1 in floating point
    k = tf.clip_by_value(k, 1, examples)
    order = tf.range(examples)
    ahead = (everyone > everyone[:, None]) | ((everyone == everyone[:, None]) & (order < order[:, None]))
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)  # [examples], 0 for the best
    kept = tf.cast(rank < k, values.dtype) * tf.cast(examples, values.dtype) / tf.cast(k, values.dtype)
    return values * step.own(kept)
