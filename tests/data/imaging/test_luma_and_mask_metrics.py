"""Luma metrics against scikit-image's colour conversion; mask metrics against counts by hand."""

import numpy as np
import pytest
import skimage.color
import skimage.metrics

from data import imaging

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def pair(channels=3, *, dtype=np.uint8, peak=255, seed=0):
    """Two similar batches [2, 40, 36, channels]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, peak + 1, (2, 40, 36, channels)).astype(dtype)
    return np.clip(y + rng.normal(0, peak / 20, y.shape), 0, peak).astype(dtype), y


def luma(image, peak):
    """Studio Y' on the scale of 8 bits."""
    if image.shape[-1] == 1:
        return image[..., 0] * (255 / peak)
    return skimage.color.rgb2ycbcr(image / peak)[..., 0]


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize(
    ("dtype", "peak", "value_range"),
    [(np.uint8, 255, None), (np.uint16, 65535, None), (np.float32, 1, (0.0, 1.0))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_luma_metrics_equal_scikit_image(border, dtype, peak, value_range, channels):
    x, y = pair(channels, dtype=dtype, peak=peak)
    psnr = imaging.luma_psnr_db(x, y, value_range, border=border)
    ssim = imaging.luma_ssim(x, y, value_range, border=border)
    inside = slice(border, -border or None)
    for k in range(2):
        a, b = (luma(image[k].astype(np.float64), peak)[inside, inside] for image in (x, y))
        expected = skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255)
        np.testing.assert_allclose(psnr[k], expected, rtol=1e-6)
        expected = skimage.metrics.structural_similarity(a, b, data_range=255, **WANG)
        np.testing.assert_allclose(ssim[k], expected, rtol=1e-6)


def test_a_difference_in_the_border_alone_does_not_count():
    _, y = pair()
    x = y.copy()
    x[:, :3] = 0
    x[:, :, -3:] = 255
    np.testing.assert_allclose(imaging.luma_psnr_db(x, y, border=3), [100, 100])
    assert np.all(imaging.luma_psnr_db(x, y, border=2) < 40)


@pytest.mark.parametrize(
    ("channels", "border", "message"),
    [
        (4, 0, "need RGB or 1 channel, not 4; leave"),
        (3, 18, "border = 18 leaves nothing of the width of 36 pixels; lower it"),
        (3, -1, "border = -1: must be at least 0"),
        (3, 13, "at least 11 x 11 pixels; the width is 10"),
    ],
)
def test_luma_metrics_refuse(channels, border, message):
    with pytest.raises(ValueError, match=message):
        imaging.luma_ssim(*pair(channels), border=border)


MASK_METRICS = [imaging.mask_iou, imaging.mask_dice, imaging.pixel_accuracy]


def test_mask_metrics_by_hand():
    y = np.zeros((3, 4, 5, 1), np.uint8)
    x = y.copy()
    y[0, :2], x[0, 1:3] = 255, 200  # 10 pixels each, 5 shared
    y[1, :1] = 128  # 5 pixels against none
    expected = {"iou": [5 / 15, 0, 1], "dice": [10 / 20, 0, 1], "accuracy": [10 / 20, 15 / 20, 1]}
    for metric, values in zip(MASK_METRICS, expected.values(), strict=True):
        np.testing.assert_allclose(metric(x, y), values)


def test_channels_are_masks_of_their_own():
    y = np.zeros((1, 2, 2, 2), np.uint8)
    x = y.copy()
    y[0, 0, :, 0], x[0, 0, :, 0] = 255, 255  # agree
    y[0, :, 0, 1], x[0, 0, :, 1] = 255, 255  # 1 of 3 shared, 2 of 4 pixels agree
    found = [float(metric(x, y)[0]) for metric in MASK_METRICS]
    np.testing.assert_allclose(found, [(1 + 1 / 3) / 2, (1 + 1 / 2) / 2, 1 / 2])


def test_mask_metrics_equal_counts_of_numpy():
    x, y = pair(3, seed=3)
    a, b = x > 127, y > 127
    inner, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
    np.testing.assert_allclose(imaging.mask_iou(x, y), (inner / either).mean(1))
    np.testing.assert_allclose(imaging.mask_dice(x, y), (2 * inner / (inner + either)).mean(1))
    np.testing.assert_allclose(imaging.pixel_accuracy(x, y), (a == b).all(3).mean((1, 2)))


@pytest.mark.parametrize(
    ("dtype", "value_range", "half"),
    [
        (np.float32, (0.0, 1.0), 0.5),
        (np.float32, (-1.0, 1.0), 0.0),
        (np.uint8, None, 128),
        (np.uint16, None, 32768),
        (np.uint16, (0, 4096), 2048),
    ],
)
def test_exactly_half_of_the_range_is_foreground(dtype, value_range, half):
    below = half - (1e-7 if dtype == np.float32 else 1)
    at_half, under = np.full((1, 2, 2, 1), half, dtype), np.full((1, 2, 2, 1), below, dtype)
    full = np.full((1, 2, 2, 1), (value_range or (0, np.iinfo(dtype).max))[1], dtype)
    for metric in MASK_METRICS:
        np.testing.assert_array_equal(metric(at_half, full, value_range), [1])
        np.testing.assert_array_equal(metric(under, full, value_range), [0])


@pytest.mark.parametrize("metric", MASK_METRICS)
def test_masks_of_an_unknown_range_are_refused(metric):
    mask = np.ones((1, 4, 4, 1), np.float32)
    with pytest.raises(TypeError, match="give value_range="):
        metric(mask, mask)
