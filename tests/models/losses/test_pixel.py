"""Losses against NumPy, one number per example."""

import numpy as np
import pytest
import tensorflow as tf

from models import losses


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 3, shape)


def test_l1_and_l2():
    a, b = random(3, 4, 5, 2), random(3, 4, 5, 2, seed=1)
    np.testing.assert_allclose(losses.l1(a, b), np.abs(a - b).mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(losses.l2(a, b), ((a - b) ** 2).mean((1, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("real", [True, False])
def test_gan_losses(real):
    logits = random(3, 6, 5, 1)
    probability = 1 / (1 + np.exp(-logits))
    bce = -np.log(probability if real else 1 - probability).mean((1, 2, 3))
    np.testing.assert_allclose(losses.gan_loss(logits, real, kind="bce"), bce, rtol=1e-10)
    squared = ((logits - real) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(losses.gan_loss(logits, real, kind="lsgan"), squared, rtol=1e-12)


def test_bce_does_not_overflow():
    logits = np.array([[-1000.0], [1000.0]], np.float32)
    np.testing.assert_array_equal(losses.gan_loss(logits, True), [1000, 0])
    np.testing.assert_array_equal(losses.gan_loss(logits, False), [0, 1000])


def test_half_precision_is_averaged_in_float32():
    a = tf.ones((2, 64, 64, 3), tf.bfloat16) * 0.3
    for value in (losses.l1(a, -a), losses.l2(a, -a), losses.gan_loss(a, True)):
        assert value.dtype == tf.float32
    np.testing.assert_allclose(losses.l1(a, -a), 2 * float(a[0, 0, 0, 0]), rtol=1e-5)


def test_no_examples_no_losses():
    empty = np.zeros((0, 4, 4, 3), np.float32)
    for value in (losses.l1(empty, empty), losses.l2(empty, empty), losses.gan_loss(empty, True)):
        assert value.shape == (0,)
        assert float(tf.reduce_sum(value)) == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'wgan': unknown; use one of bce, lsgan"):
        losses.gan_loss(np.zeros((1, 2, 2, 1), np.float32), True, kind="wgan")
