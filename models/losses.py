"""Losses, one number per example.

Every function returns [B], the mean over all other axes, in float32 or, for float64 inputs,
float64. None divides by a batch size: the engine does, by the global one.
"""

import tensorflow as tf

from models.layers import at_least_float32


def l1(a, b):
    """Mean absolute difference of each example: a, b [B, ...] -> [B]."""
    return _mean_per_example(tf.abs(at_least_float32(a) - at_least_float32(b)))


def l2(a, b):
    """Mean squared difference of each example: a, b [B, ...] -> [B]."""
    return _mean_per_example(tf.square(at_least_float32(a) - at_least_float32(b)))


def gan_loss(logits, real, kind="bce"):
    """How far a discriminator's logits are from the label real (1) or fake (0).

    logits [B, ...], without a sigmoid; `real` a Python bool -> [B].
    `kind`: "bce", binary cross-entropy (Goodfellow et al., 2014; the generator's loss, with
    `real=True` on its fakes, is the non-saturating one), or "lsgan", the squared distance to the
    label (Mao et al., 2017). Raises ValueError for another.
    """
    logits = at_least_float32(logits)
    if kind == "bce":
        # -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x), without overflow.
        return _mean_per_example(tf.nn.softplus(-logits if real else logits))
    if kind == "lsgan":
        return _mean_per_example(tf.square(logits - (1.0 if real else 0.0)))
    raise ValueError(f"unknown kind of adversarial loss {kind!r}; choose one of: bce, lsgan")


def _mean_per_example(x):
    return tf.reduce_mean(x, axis=list(range(1, x.shape.rank)))
