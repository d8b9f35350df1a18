"""DiffAugment against NumPy with the same draws."""

import numpy as np
import pytest
import tensorflow as tf

from engine.task import Seeds
from models.networks.diff_augment import POLICIES, diff_augment


def seeds(key=(1, 2), examples=4, own=lambda x: x):
    return Seeds(key=tf.constant(key), global_batch=tf.constant(examples), own=own)


def images(shape=(4, 16, 24, 3), dtype=np.float64):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)


def draws_of(part, name="real"):
    return seeds().uniform(f"diff_augment/{name}/{part}", (3,)).numpy().astype(np.float64)


def test_colour():
    x, expected = images(), []
    for image, (brightness, saturation, contrast) in zip(x, draws_of("colour"), strict=True):
        y = image + brightness - 0.5
        grey = y.mean(-1, keepdims=True)
        y = grey + (y - grey) * 2 * saturation
        expected.append(y.mean() + (y - y.mean()) * (contrast + 0.5))
    found = diff_augment(tf.constant(x), seeds(), policy=("colour",), name="real")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_translation():
    x, expected = images(), np.zeros((4, 16, 24, 3))
    for k, draws in enumerate(draws_of("translation")):
        down, right = int(draws[1] * 5) - 2, int(draws[2] * 7) - 3  # an eighth of 16 and of 24
        for row in range(16):
            for column in range(24):
                if 0 <= row + down < 16 and 0 <= column + right < 24:
                    expected[k, row, column] = x[k, row + down, column + right]
    found = diff_augment(tf.constant(x), seeds(), policy=("translation",), name="real")
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != x)


def test_cutout():
    x, expected = images(), images()
    for k, draws in enumerate(draws_of("cutout")):
        top, left = int(draws[1] * 17) - 4, int(draws[2] * 25) - 6
        expected[k, max(top, 0) : top + 8, max(left, 0) : left + 12] = 0
    found = diff_augment(tf.constant(x), seeds(), policy=("cutout",), name="real")
    np.testing.assert_array_equal(found, expected)


def test_the_whole_range_is_drawn():
    many = seeds(examples=4000)
    x = tf.ones([4000, 16, 16, 1])
    moved = diff_augment(x, many, policy=("translation",), name="real").numpy()[..., 0]
    rows = np.flatnonzero(np.bincount(16 - moved.max(2).sum(1).astype(int)))
    np.testing.assert_array_equal(rows, [0, 1, 2])  # by at most an eighth of 16
    cut = diff_augment(x, many, policy=("cutout",), name="real").numpy()[..., 0] == 0
    sizes = cut.max(2).sum(1)
    assert sizes.min() == 4 and sizes.max() == 8  # a centre on the edge leaves half of it


@pytest.mark.parametrize("policy", [(part,) for part in POLICIES] + [POLICIES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_flow_to_the_images(policy, dtype):
    x = tf.constant(images(dtype=dtype))
    weights = tf.constant(np.random.default_rng(1).normal(size=x.shape), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = diff_augment(x, seeds(), policy=policy, name="real")
        total = tf.reduce_sum(y * weights)
    assert y.dtype == dtype and y.shape == x.shape
    gradient = tape.gradient(total, x)
    # Every part is linear in the image, but for a constant.
    constant = tf.reduce_sum(diff_augment(tf.zeros_like(x), seeds(), policy=policy, name="real") * weights)
    np.testing.assert_allclose(
        tf.reduce_sum(gradient * x), total - constant, rtol=1e-4 if dtype == np.float32 else 1e-9
    )


def test_calls_of_one_name_agree_and_others_differ():
    x = tf.constant(images())
    real, again, fake = (diff_augment(x, seeds(), policy=POLICIES, name=n) for n in ("real", "real", "fake"))
    np.testing.assert_array_equal(real, again)
    assert np.any(real != fake)
    other_step = diff_augment(x, seeds(key=(1, 3)), policy=POLICIES, name="real")
    assert np.any(real != other_step)
    own = seeds(own=lambda rows: rows[1:3])  # a replica with the middle rows
    np.testing.assert_array_equal(diff_augment(x[1:3], own, policy=POLICIES, name="real"), real[1:3])


def test_sizes_may_be_unknown_while_tracing():
    x = images(dtype=np.float32)
    augment = tf.function(
        lambda x: diff_augment(x, seeds(), policy=POLICIES, name="real"),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    expected = diff_augment(tf.constant(x), seeds(), policy=POLICIES, name="real")
    np.testing.assert_allclose(augment(x), expected, rtol=0, atol=1e-6)


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="'color': unknown; use some of colour, translation, cutout"):
        diff_augment(tf.zeros([4, 8, 8, 3]), seeds(), policy=("color",), name="real")
