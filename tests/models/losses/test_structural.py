"""Losses between images against NumPy, SciPy, scikit-image and TensorFlow's own."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import skimage.color
import skimage.metrics
import tensorflow as tf

from data import imaging
from models import losses


def images(*shape, seed=0):
    """Smooth images in [-1, 1]."""
    x = np.random.default_rng(seed).normal(0, 4, shape)
    return np.clip(scipy.ndimage.gaussian_filter(x, (0, 2, 2, 0)), -1, 1)


def noisy(x, seed=9):
    return np.clip(x + np.random.default_rng(seed).normal(0, 0.1, x.shape), -1, 1)


def three_scales(a, b):
    return losses.ms_ssim_loss(a, b, weights=(0.3, 0.3, 0.4))


PAIR_LOSSES = {
    "l1": losses.l1,
    "l2": losses.l2,
    "charbonnier": losses.charbonnier,
    "ssim": losses.ssim_loss,
    "ms_ssim": three_scales,
    "satd4": losses.satd,
    "satd8": lambda a, b: losses.satd(a, b, size=8),
    "dct": losses.weighted_dct,
    "lab": lambda a, b: losses.l1(losses.to_colour_space(a, "lab"), losses.to_colour_space(b, "lab")),
    "ycbcr": lambda a, b: losses.l1(
        losses.to_colour_space(a, "ycbcr_bt709_full"), losses.to_colour_space(b, "ycbcr_bt709_full")
    ),
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_loss_is_per_example_falls_with_the_difference_and_has_right_gradients(name):
    loss = PAIR_LOSSES[name]
    a = images(2, 48, 44, 3)
    b = noisy(a)
    values = [loss(a, a + share * (b - a)).numpy() for share in (1, 0.5, 0)]
    assert values[0].shape == (2,) and values[0].dtype == np.float64
    assert np.all(values[0] > values[1]) and np.all(values[1] > values[2]) and np.all(values[2] < 2e-3)
    for one in range(2):  # an example's loss does not depend on the others
        np.testing.assert_allclose(loss(a[one : one + 1], b[one : one + 1])[0], values[0][one], rtol=1e-9)

    x, direction = tf.constant(b), np.random.default_rng(1).normal(0, 1, b.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(loss(x, a))
    gradient = tape.gradient(total, x)
    assert gradient.dtype == tf.float64
    nudge = 1e-7 * direction
    slope = np.sum(loss(b + nudge, a) - loss(b - nudge, a)) / 2e-7
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_gradients_are_finite_where_images_are_flat(name, dtype, level):
    a = tf.constant(images(2, 44, 44, 3), dtype)
    for x, y in ((tf.fill([2, 44, 44, 3], tf.cast(level, dtype)), a), (a, a)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = PAIR_LOSSES[name](x, y)
        assert value.dtype == tf.float32 and value.shape == (2,)
        assert np.all(np.isfinite(value)) and np.all(
            np.isfinite(tf.cast(tape.gradient(value, x), tf.float32))
        )


def test_charbonnier():
    a, b = images(2, 6, 5, 3), images(2, 6, 5, 3, seed=1)
    expected = np.hypot(a - b, 0.01).mean((1, 2, 3))
    np.testing.assert_allclose(losses.charbonnier(a, b, epsilon=0.01), expected, rtol=1e-12)


def test_total_variation():
    x = images(2, 7, 6, 3)
    expected = np.abs(np.diff(x, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(x, axis=2)).mean((1, 2, 3))
    np.testing.assert_allclose(losses.total_variation(x), expected, rtol=1e-12)
    square = images(2, 8, 8, 3)
    pairs = 8 * 7 * 3
    np.testing.assert_allclose(
        losses.total_variation(square), tf.image.total_variation(tf.constant(square)) / pairs, rtol=1e-6
    )
    flat = tf.zeros([1, 4, 4, 1])
    with tf.GradientTape() as tape:
        tape.watch(flat)
        value = losses.total_variation(flat)
    assert np.all(np.isfinite(tape.gradient(value, flat)))


def test_ssim_loss_equals_scikit_image():
    a = images(2, 24, 20, 3)
    b = noisy(a)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    expected = [
        1 - skimage.metrics.structural_similarity((x + 1) / 2, (y + 1) / 2, data_range=1, **settings)
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(losses.ssim_loss(a, b), expected, rtol=1e-9)


def test_ms_ssim_loss_equals_tensorflow():
    a = images(1, 164, 170, 3)
    b = noisy(a)
    expected = 1 - tf.image.ssim_multiscale((a + 1) / 2, (b + 1) / 2, 1.0)
    np.testing.assert_allclose(losses.ms_ssim_loss(a, b), expected, rtol=1e-4)


@pytest.mark.parametrize("size", [4, 8])
def test_satd_counts_as_a_codec_does(size):
    a, b = images(2, 16, 24, 3), images(2, 16, 24, 3, seed=1)
    blocks = (a - b).reshape(2, 16 // size, size, 24 // size, size, 3).transpose(0, 1, 3, 5, 2, 4)
    matrix = scipy.linalg.hadamard(size)
    sums = np.abs(matrix @ blocks @ matrix.T).sum((1, 2, 3, 4, 5))
    hevc = sums / {4: 2, 8: 4}[size]  # (sum + 1) >> 1 and (sum + 2) >> 2 in whole numbers
    found = losses.satd(a, b, size=size)
    np.testing.assert_allclose(2 * found * 16 * 24 * 3, hevc, rtol=1e-10)


@pytest.mark.parametrize("size", [4, 8])
def test_satd_of_a_pixel_and_of_a_block_is_that_of_the_docstring(size):
    zero = np.zeros((1, 16, 16, 1))
    pixel, block = zero.copy(), zero.copy()
    pixel[0, 5, 6] = 0.5
    block[0, :size, size : 2 * size] = 0.5
    for images, factor in ((pixel, size), (block, 1 / size)):
        found = losses.satd(images, zero, size=size) / losses.l1(images, zero)
        np.testing.assert_allclose(found, factor, rtol=1e-12)


def test_weighted_dct_equals_scipy():
    a, b = images(2, 16, 24, 3), images(2, 16, 24, 3, seed=1)
    blocks = (a - b).reshape(2, 2, 8, 3, 8, 3).transpose(0, 1, 3, 5, 2, 4)
    weights = 1 / imaging.JPEG_LUMINANCE
    coefficients = np.abs(scipy.fft.dctn(blocks, axes=(4, 5), norm="ortho")) * weights / weights.mean()
    np.testing.assert_allclose(losses.weighted_dct(a, b), coefficients.mean((1, 2, 3, 4, 5)), rtol=1e-10)
    only_constant = np.eye(4)[:, :1] * np.eye(4)[:1]  # 1 for the constant part
    means = (a - b).reshape(2, 4, 4, 6, 4, 3).mean((2, 4))
    expected = np.abs(4 * means).sum((1, 2, 3)) / (16 * 24 * 3)
    np.testing.assert_allclose(losses.weighted_dct(a, b, weights=only_constant), expected, rtol=1e-10)
    with pytest.raises(ValueError, match=r"must be \[n, n\]"):
        losses.weighted_dct(a, b, weights=[1.0, 2.0])


def test_flat_weights_and_white_noise_count_as_l2_would():
    noise = np.random.default_rng(0).normal(0, 1, (1, 64, 64, 3))
    zero = np.zeros_like(noise)
    expected = np.sqrt(2 / np.pi)  # mean absolute value of a standard normal, kept by orthonormal transforms
    for value in (losses.weighted_dct(noise, zero, weights=np.ones((8, 8))), losses.satd(noise, zero)):
        np.testing.assert_allclose(value, expected, rtol=0.03)


def test_colour_spaces():
    x = images(1, 5, 6, 3)
    rgb = (x + 1) / 2
    lab = skimage.color.rgb2lab(rgb) / [50, 110, 110] - [1, 0, 0]
    np.testing.assert_allclose(losses.to_colour_space(x, "lab"), lab, rtol=0, atol=1e-5)
    y, cb, cr = np.moveaxis(losses.to_colour_space(x, "ycbcr_bt601_full").numpy(), -1, 0)
    luma = rgb @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(y, 2 * luma - 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cb, (rgb[..., 2] - luma) * 2 / 1.772, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cr, (rgb[..., 0] - luma) * 2 / 1.402, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(losses.to_colour_space(x, "rgb"), x)
    with pytest.raises(ValueError, match="'hsv': not known; choose one of: rgb, ycbcr_bt601_full, .*, lab"):
        losses.to_colour_space(x, "hsv")
