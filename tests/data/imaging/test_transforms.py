"""Similarity at several scales and block transforms against SciPy, scikit-image and TensorFlow."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import skimage.metrics
import tensorflow as tf

from data import imaging


def pair(*shape, seed=0):
    """Two similar smooth images in [0, 1]."""
    rng = np.random.default_rng(seed)
    x = scipy.ndimage.gaussian_filter(rng.normal(0, 4, shape), (0, 2, 2, 0)) + 0.5
    x = np.clip(x, 0, 1)
    return x, np.clip(x + rng.normal(0, 0.1, shape), 0, 1)


def ms_ssim_with_scipy(x, y, weights):
    """MS-SSIM of one channel [H, W] with peak 1."""
    result = 1.0
    for scale, weight in enumerate(weights):

        def mean(z):
            z = scipy.ndimage.gaussian_filter(z, 1.5, truncate=5 / 1.5)
            return z[5:-5, 5:-5]

        covariance = mean(x * y) - mean(x) * mean(y)
        variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
        comparison = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        if scale == len(weights) - 1:
            comparison *= (2 * mean(x) * mean(y) + 1e-4) / (mean(x) ** 2 + mean(y) ** 2 + 1e-4)
        result *= comparison.mean() ** weight
        x, y = (scipy.ndimage.uniform_filter(z, 2)[1::2, 1::2] for z in (x, y))
    return result


def test_float_ssim_equals_scikit_image():
    x, y = pair(2, 20, 31, 3)
    found = imaging.structural_similarity(tf.constant(x), tf.constant(y), peak=1.0)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        skimage.metrics.structural_similarity(a, b, data_range=1, channel_axis=-1, **settings)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_ms_ssim_equals_scipy_and_tensorflow():
    x, y = pair(2, 176, 192, 2)
    found = imaging.multiscale_similarity(tf.constant(x), tf.constant(y), peak=1.0)
    weights = imaging.MS_SSIM_WEIGHTS
    expected = [
        np.mean([ms_ssim_with_scipy(a[..., c], b[..., c], weights) for c in range(2)])
        for a, b in zip(x, y, strict=True)
    ]
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found, tf.image.ssim_multiscale(x, y, 1.0), rtol=1e-4)


def test_ms_ssim_of_odd_sides_equals_tensorflow():
    x, y = pair(2, 43, 51, 3)
    weights = (0.3, 0.3, 0.4)
    found = imaging.multiscale_similarity(tf.constant(x), tf.constant(y), peak=1.0, weights=weights)
    expected = tf.image.ssim_multiscale(x, y, 1.0, power_factors=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_ms_ssim_of_opposite_images_has_finite_gradients():
    x = tf.constant(pair(1, 44, 44, 1)[0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = imaging.multiscale_similarity(x, 1 - x, peak=1.0, weights=(0.3, 0.3, 0.4))
    assert 0 < float(value[0]) < 0.1  # the structures are opposite: their comparison is negative
    assert np.all(np.isfinite(tape.gradient(value, x)))


def test_ms_ssim_says_what_size_it_needs():
    small = tf.zeros([1, 160, 200, 3])
    with pytest.raises(
        ValueError, match="5 scales: needs images of at least 161 x 161 pixels.*height is 160"
    ):
        imaging.multiscale_similarity(small, small, peak=1.0)


@pytest.mark.parametrize("size", [4, 8])
def test_block_transforms_equal_scipy(size):
    x = np.random.default_rng(0).normal(size=(2, 2 * size, 3 * size, 3))
    blocks = x.reshape(2, 2, size, 3, size, 3).transpose(0, 1, 3, 5, 2, 4)
    matrix = scipy.linalg.hadamard(size)
    hadamard = imaging.block_hadamard(tf.constant(x), size=size)
    np.testing.assert_allclose(hadamard, matrix @ blocks @ matrix.T / size, rtol=0, atol=1e-12)
    dct = imaging.block_dct(tf.constant(x), size=size)
    np.testing.assert_allclose(dct, scipy.fft.dctn(blocks, axes=(4, 5), norm="ortho"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", [imaging.block_hadamard, imaging.block_dct])
def test_blocks_over_the_edge_are_padded_with_zeros(transform):
    x = np.random.default_rng(0).normal(size=(1, 5, 9, 2)).astype(np.float32)
    filled = np.pad(x, [(0, 0), (0, 3), (0, 3), (0, 0)])
    unknown = tf.TensorSpec([None, None, None, 2])
    found = tf.function(lambda y: transform(y, size=4), input_signature=[unknown])
    assert found(x).dtype == tf.float32
    np.testing.assert_allclose(found(x), transform(tf.constant(filled), size=4), rtol=0, atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(found(x) ** 2), np.sum(x**2), rtol=1e-5)  # orthonormal


def test_hadamard_refuses_other_sizes():
    with pytest.raises(ValueError, match="power of 2"):
        imaging.block_hadamard(tf.zeros([1, 6, 6, 1]), size=6)
