"""Ranges and metrics against NumPy, scikit-image, and stored numbers."""

import json
import pathlib

import numpy as np
import pytest
import skimage.metrics
import tensorflow as tf

from data import imaging

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens" / "metrics.npz"
METRICS = [imaging.mae, imaging.mse, imaging.rmse, imaging.psnr_db, imaging.ssim]


@pytest.fixture(scope="module")
def goldens():
    with np.load(GOLDENS) as stored:
        return dict(stored)


def test_ranges_are_inverse():
    levels = np.arange(256, dtype=np.uint8)
    signed = imaging.to_signed(levels)
    assert signed.dtype == tf.float32
    assert signed[0] == -1 and signed[255] == 1
    np.testing.assert_array_equal(imaging.to_uint8(signed), levels)


def test_to_uint8_rounds_to_nearest_and_clips():
    levels = np.array([-9.0, -0.4, 0.49, 0.51, 127.5, 254.49, 254.51, 300.0])
    rounded = imaging.to_uint8(levels / 127.5 - 1)
    np.testing.assert_array_equal(rounded, [0, 0, 0, 1, 128, 254, 255, 255])


def test_to_uint8_keeps_grey_levels_of_bfloat16():
    signed = tf.cast([-1.0, -0.5, 0.5, 1.0], tf.bfloat16)
    np.testing.assert_array_equal(imaging.to_uint8(signed), [0, 64, 191, 255])


@pytest.mark.parametrize("name", ["mae", "mse", "rmse", "psnr", "ssim"])
def test_metrics_equal_goldens(goldens, name):
    metric = getattr(imaging, "psnr_db" if name == "psnr" else name)
    found = metric(goldens["prediction"], goldens["image"])
    expected = goldens[name] if name != "rmse" else np.sqrt(goldens["mse"])
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(64, 48, 3), (11, 30, 1), (33, 11, 4)])
def test_metrics_equal_scikit_image(shape):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, *shape), np.uint8)
    y = np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
    psnr, ssim = imaging.psnr_db(x, y), imaging.ssim(x, y)
    for k in range(2):
        expected = skimage.metrics.peak_signal_noise_ratio(x[k], y[k], data_range=255)
        np.testing.assert_allclose(psnr[k], expected, rtol=1e-12)
        expected = skimage.metrics.structural_similarity(
            x[k],
            y[k],
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        np.testing.assert_allclose(ssim[k], expected, rtol=1e-9)


def test_identical_images_have_finite_metrics():
    x = np.full((1, 16, 16, 3), 77, np.uint8)
    values = [float(metric(x, x)[0]) for metric in METRICS]
    np.testing.assert_allclose(values, [0, 0, 0, 100, 1], atol=1e-12)
    json.dumps(values, allow_nan=False)


def test_psnr_just_below_the_cap():
    x = np.zeros((1, 4000, 1000, 3), np.uint8)
    y = x.copy()
    y[0, 0, 0, 0] = 1
    np.testing.assert_allclose(imaging.psnr_db(x, y), [100.0])  # the true value is 118.9 dB
    y[0, :100] = 1
    np.testing.assert_allclose(imaging.psnr_db(x, y), [10 * np.log10(255**2 * 40)])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_metrics_take_uint8_only(metric, dtype):
    good, bad = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), dtype)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(TypeError, match=np.dtype(dtype).name):
            metric(*pair)


def test_metrics_refuse_shapes():
    x = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="one shape"):
        imaging.mse(x, x[:1])
    with pytest.raises(ValueError, match="B, H, W, C"):
        imaging.mse(x[0], x[0])
    with pytest.raises(ValueError, match="at least 11"):
        imaging.ssim(x[:, :10], x[:, :10])


def test_shapes_unknown_while_tracing_are_compared_when_known():
    mse = tf.function(imaging.mse, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)] * 2)
    x = np.zeros((2, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(mse(x, x), [0, 0])
    with pytest.raises(tf.errors.InvalidArgumentError):
        mse(x, x[:1])


def test_ranges_take_the_dtype_they_are_for():
    with pytest.raises(TypeError, match="float32"):
        imaging.to_signed(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="uint8"):
        imaging.to_uint8(np.zeros(3, np.uint8))
