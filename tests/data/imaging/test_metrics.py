"""Ranges and metrics against NumPy, scikit-image, and stored numbers."""

import json
import pathlib

import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics
import tensorflow as tf

from data import imaging

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens" / "metrics.npz"
WANG = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
METRICS = [imaging.mae, imaging.mse, imaging.rmse, imaging.psnr_db, imaging.ssim]


def ms_ssim_by_scipy(x, y):
    """Wang et al. 2003 for one image [H, W, C] in [0, 255], averaged over the channels."""

    def mean(values):
        blurred = scipy.ndimage.gaussian_filter(values, 1.5, radius=5)
        return blurred[5:-5, 5:-5]

    def halved(values):
        values = np.pad(values, [(0, n % 2) for n in values.shape], "edge")
        return (values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]) / 4

    products = []
    for channel in range(x.shape[-1]):
        a, b = x[..., channel].astype(float), y[..., channel].astype(float)
        product = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            covariance = mean(a * b) - mean(a) * mean(b)
            variances = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
            term = (2 * covariance + 7.65**2) / (variances + 7.65**2)
            if scale == 4:
                term *= (2 * mean(a) * mean(b) + 2.55**2) / (mean(a) ** 2 + mean(b) ** 2 + 2.55**2)
            product *= max(term.mean(), 1e-6) ** weight
            a, b = halved(a), halved(b)
        products.append(product)
    return np.mean(products)


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
        expected = skimage.metrics.structural_similarity(x[k], y[k], data_range=255, **WANG)
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
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_metrics_refuse_images_whose_range_is_unknown(metric, dtype):
    image = np.zeros((1, 16, 16, 3), dtype)
    with pytest.raises(TypeError, match=rf"{np.dtype(dtype).name} images is unknown; give value_range="):
        metric(image, image)
    assert np.isfinite(metric(image, image, (0.0, 1.0)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_metrics_refuse_to_compare_two_dtypes(metric, dtype):
    good, bad = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), dtype)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(TypeError, match=f"(?=.*uint8)(?=.*{np.dtype(dtype).name}).*cannot be compared"):
            metric(*pair)


def test_the_mistake_of_an_mse_far_below_the_mae_is_caught(goldens):
    """Images in [0, 1] that pass for grey levels: the formulas alone would report them without a word."""
    x, y = (goldens[name].astype(np.float32) / 255 for name in ("prediction", "image"))
    mse, mae = np.mean((x - y) ** 2, (1, 2, 3)), np.mean(np.abs(x - y), (1, 2, 3))
    wrong_psnr = 10 * np.log10(255**2 / mse)
    assert np.all(mse < mae / 5) and np.all(wrong_psnr > goldens["psnr"] + 48)  # the mistake
    for metric in METRICS:
        with pytest.raises(TypeError, match=r"the range of float32 images is unknown; give value_range="):
            metric(x, y)
    for name in ("mse", "mae"):  # with the range, they are in units of that range
        found = getattr(imaging, name)(x, y, (0.0, 1.0))
        np.testing.assert_allclose(found, goldens[name] / (255**2 if name == "mse" else 255), rtol=1e-5)
    np.testing.assert_allclose(imaging.psnr_db(x, y, (0.0, 1.0)), goldens["psnr"], rtol=1e-6)
    np.testing.assert_allclose(imaging.ssim(x, y, (0.0, 1.0)), goldens["ssim"], rtol=1e-6)


def test_a_wrong_range_is_caught(goldens):
    x, y = (tf.constant(goldens[name], tf.float32) for name in ("prediction", "image"))
    with pytest.raises(ValueError, match=r"far outside value_range = \(0, 1\).*give the range"):
        imaging.psnr_db(x, y, (0.0, 1.0))
    with pytest.raises(ValueError, match="not finite"):
        imaging.psnr_db(x, y * np.nan, (0.0, 255.0))
    with pytest.raises(ValueError, match=r"must be \(lowest, highest\)"):
        imaging.psnr_db(x, y, (1.0, 0.0))
    traced = tf.function(lambda a, b: imaging.psnr_db(a, b, (0.0, 1.0)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="far outside value_range"):
        traced(x, y)


def test_values_that_are_not_finite_stay_visible(goldens):
    x = tf.constant(goldens["prediction"], tf.float32) * [1.0, np.nan, 1.0]
    y = tf.constant(goldens["image"], tf.float32)
    for metric in METRICS:
        assert np.all(np.isnan(metric(x, y, (0.0, 255.0))))


@pytest.mark.parametrize("value_range", [None, (0, 4095), (-1000.0, 3000.0)])
def test_deep_images_are_measured_at_their_own_depth(value_range):
    low, high = value_range or (0, 65535)
    dtype = np.float32 if low < 0 else np.uint16
    rng = np.random.default_rng(1)
    y = rng.integers(low, high, (2, 40, 50, 3)).astype(dtype)
    x = np.clip(y + rng.normal(0, (high - low) / 2000, y.shape), low, high).astype(dtype)
    settings = {"data_range": high - low}
    for k in range(2):
        expected = skimage.metrics.peak_signal_noise_ratio(x[k], y[k], **settings)
        assert 60 < expected < 75
        np.testing.assert_allclose(imaging.psnr_db(x, y, value_range)[k], expected, rtol=1e-9)
        expected = skimage.metrics.structural_similarity(
            x[k].astype(np.float64) - low, y[k].astype(np.float64) - low, **WANG, **settings
        )
        np.testing.assert_allclose(imaging.ssim(x, y, value_range)[k], expected, rtol=1e-9)
    difference = x.astype(np.float64) - y.astype(np.float64)
    np.testing.assert_allclose(imaging.mae(x, y, value_range), np.abs(difference).mean((1, 2, 3)))
    np.testing.assert_allclose(imaging.rmse(x, y, value_range), np.sqrt((difference**2).mean((1, 2, 3))))


def test_16_bit_images_that_8_bits_cannot_tell_apart():
    y = np.full((1, 16, 16, 1), 30000, np.uint16)
    x = y + np.uint16(6)
    np.testing.assert_allclose(imaging.psnr_db(x, y), 20 * np.log10(65535 / 6))  # 80.8 dB
    assert not imaging.identical(x, y)[0] and imaging.identical(x, x)[0]


def test_identical_images_are_told_from_near_ones(goldens):
    x = goldens["image"].copy()
    x[1, 0, 0, 0] ^= 1
    np.testing.assert_array_equal(imaging.identical(x, goldens["image"]), [True, False, True, True])


def test_ms_ssim_equals_tensorflow_and_the_definition():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 256, (1, 170, 163, 2), np.uint8)
    y = np.round(scipy.ndimage.gaussian_filter(y.astype(float), (0, 2, 2, 0))).astype(np.uint8)
    x = np.clip(y + rng.normal(0, 12, y.shape), 0, 255).astype(np.uint8)
    found = imaging.ms_ssim(x, y)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, tf.image.ssim_multiscale(x, y, 255), atol=1e-4)
    np.testing.assert_allclose(found, [ms_ssim_by_scipy(x[0], y[0])], rtol=1e-9)
    np.testing.assert_allclose(imaging.ms_ssim(x, x), [1])
    with pytest.raises(ValueError, match="at least 161 x 161"):
        imaging.ms_ssim(x[:, :, :160], y[:, :, :160])


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
