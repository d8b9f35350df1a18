"""Losses of labels against SciPy and Keras."""

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from models.losses import cross_entropy, huber, l1, l2

DRAW = np.random.default_rng(0)


def test_numbers():
    a, b = DRAW.normal(scale=3, size=(2, 5, 3))
    np.testing.assert_allclose(
        huber(a, b, delta=1.7), scipy.special.huber(1.7, a - b).mean(axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(l2(a, b), np.square(a - b).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(l1(a, b), np.abs(a - b).mean(axis=1), rtol=1e-12)


def test_classes():
    logits, targets = DRAW.normal(scale=30, size=(6, 4)), np.eye(4)[[0, 1, 2, 3, 1, 1]]
    expected = -(targets * scipy.special.log_softmax(logits, axis=1)).sum(axis=1)
    np.testing.assert_allclose(cross_entropy(logits, targets), expected, rtol=1e-12)
    for smoothing in (0.0, 0.1):
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing, reduction=None, dtype="float64"
        )
        found = cross_entropy(logits, targets, label_smoothing=smoothing)
        np.testing.assert_allclose(found, loss(targets, logits), rtol=1e-9)


def test_half_precision_is_summed_in_float32():
    logits = tf.constant([[3.0, 1.0]], tf.bfloat16)
    assert cross_entropy(logits, tf.constant([[1.0, 0.0]])).dtype == tf.float32
    assert huber(logits, logits).dtype == tf.float32
