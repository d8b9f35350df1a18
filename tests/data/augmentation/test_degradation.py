"""Degradations against SciPy (blur), Pillow (JPEG, downscaling), NumPy (cutout) and statistics (noise)."""

import functools
import io

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image

from data.augmentation import Cutout, Downscale, GaussianBlur, JpegCompression, Noise
from data.errors import DataError

HEIGHT, WIDTH = 27, 38
SEEDS = range(6)


def textured(channels, height=HEIGHT, width=WIDTH):
    """Edges and noise from 0 to 1: float32 [height, width, channels]."""
    rng = np.random.default_rng(channels)
    y, x = np.mgrid[:height, :width]
    edges = ((x // 5 + y // 4) % 2)[:, :, None]
    noise = rng.random((height, width, channels))
    return np.where(noise < 0.5, edges, noise).astype(np.float32)


PAIR = {"input": textured(3), "target": textured(1)}


def seed_of(number):
    return tf.constant([number, 7], tf.int64)


@functools.cache
def compiled(augmentation):
    """The augmentation of a pair of any size as one graph."""
    spec = {role: tf.TensorSpec([None, None, image.shape[-1]]) for role, image in PAIR.items()}
    return tf.function(augmentation, input_signature=[spec, tf.TensorSpec([2], tf.int64)])


def draws(draw, count):
    """The draws of `count` examples, inside tf.data: arrays in the structure of one draw."""
    examples = tf.data.Dataset.range(count).map(lambda k: draw(tf.stack([k, 7]))).batch(count)
    return tf.nest.map_structure(lambda drawn: drawn.numpy(), examples.get_single_element())


def assert_uniform(numbers, low, high):
    assert scipy.stats.kstest(numbers, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [(0.0, 0.0), (0.05, 3.0), (20.0, 25.0)])
def test_blur_equals_scipy(sigma):
    """Down to no blur at all, and up to kernels several times as large as the image."""
    augmentation = GaussianBlur(sigma=sigma, on="both")
    for number in SEEDS:
        drawn = float(augmentation.draw(seed_of(number)).sigma)
        changed = compiled(augmentation)(PAIR, seed_of(number))
        for role, image in PAIR.items():
            expected = scipy.ndimage.gaussian_filter(image.astype(np.float64), drawn, axes=(0, 1))
            np.testing.assert_allclose(changed[role], expected, atol=2e-6)


def test_distribution_of_the_blur():
    assert_uniform(draws(GaussianBlur(sigma=(0.5, 3)).draw, 1000).sigma, 0.5, 3)


def test_noise_has_the_variance_drawn_at_every_level():
    augmentation = Noise(sigma=(0.01, 0.03), gain=(0.001, 0.003))
    levels = np.array([0.2, 0.4, 0.6, 0.8])
    image = np.repeat(np.repeat(levels, 50)[None, :, None], 100, 0).repeat(3, -1).astype(np.float32)
    for number in range(3):
        drawn = augmentation.draw(seed_of(number))
        noise = augmentation({"input": image}, seed_of(number))["input"].numpy() - image
        expected = np.sqrt(float(drawn.sigma) ** 2 + float(drawn.gain) * image)
        standard = noise / expected
        for level in np.split(standard, 4, axis=1):  # 15,000 numbers each
            assert scipy.stats.kstest(level.ravel(), "norm").pvalue > 1e-3
        assert np.abs(np.corrcoef(standard.reshape(-1, 3).T) - np.eye(3)).max() < 0.03  # 4 sigma
        shifted = [(standard[1:] * standard[:-1]).mean(), (standard[:, 1:] * standard[:, :-1]).mean()]
        assert np.abs(shifted).max() < 0.017  # 4 sigma


def test_noise_is_the_same_for_both_and_clipped():
    augmentation = Noise(sigma=(0.1, 0.1), on="both")
    pair = {"input": np.full((40, 50, 3), 0.5, np.float32), "target": np.zeros((40, 50, 1), np.float32)}
    changed = compiled(augmentation)(pair, seed_of(0))
    positive = np.maximum(changed["input"][..., :1] - 0.5, 0)
    np.testing.assert_allclose(changed["target"], positive, atol=1e-6)
    assert 0.4 < (positive > 0).mean() < 0.6


def test_distribution_of_the_noise():
    drawn = draws(Noise(sigma=(0.1, 0.2), gain=(0.0, 0.01)).draw, 1000)
    assert_uniform(drawn.sigma, 0.1, 0.2)
    assert_uniform(drawn.gain, 0, 0.01)
    assert len(np.unique(drawn.seed, axis=0)) == 1000


def test_cutout_equals_numpy():
    augmentation = Cutout(side=(0.0, 0.8), holes=3, fill=0.25, on="both")
    over_the_edge = 0
    for number in SEEDS:
        drawn = augmentation.draw(seed_of(number), HEIGHT, WIDTH)
        changed = compiled(augmentation)(PAIR, seed_of(number))
        for role, image in PAIR.items():
            expected = image.copy()
            for top, left, side in np.transpose(drawn[1:]):
                over_the_edge += top < 0 or left < 0
                expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0.25
            np.testing.assert_array_equal(changed[role], expected)
    assert over_the_edge


def test_distribution_of_the_squares():
    height, width = 4000, 6000  # large, so that rounding to pixels is not seen
    drawn = draws(lambda seed: Cutout(side=(0.1, 0.4)).draw(seed, height, width), 1000)
    assert_uniform(drawn.side[:, 0] / height, 0.1, 0.4)
    assert_uniform((drawn.top + drawn.side // 2)[:, 0] / height, 0, 1)
    assert_uniform((drawn.left + drawn.side // 2)[:, 0] / width, 0, 1)


@pytest.mark.parametrize("quality", [(5, 100), (40, 40)])
def test_jpeg_equals_pillow(quality):
    augmentation = JpegCompression(quality=quality, on="both")
    for number in SEEDS:
        drawn = int(augmentation.draw(seed_of(number)).quality)
        changed = compiled(augmentation)(PAIR, seed_of(number))
        for role, image in PAIR.items():
            pixels = np.round(image * 255).astype(np.uint8).squeeze()
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=drawn, subsampling="4:2:0")
            expected = np.asarray(Image.open(buffer), np.float32).reshape(image.shape)
            np.testing.assert_allclose(changed[role] * 255, expected, atol=1.01)
            assert (np.abs(changed[role] * 255 - expected) > 0.5).mean() < 0.01


@pytest.mark.parametrize("channels", [2, 4])
def test_jpeg_keeps_alpha(channels):
    image, augmentation = textured(channels), JpegCompression()
    changed = augmentation({"input": image}, seed_of(0))["input"]
    colours = augmentation({"input": image[..., :-1]}, seed_of(0))["input"]
    np.testing.assert_array_equal(changed[..., -1], image[..., -1])
    np.testing.assert_array_equal(changed[..., :-1], colours)
    assert np.abs(colours - image[..., :-1]).mean() > 0.01


def test_jpeg_refuses_many_channels():
    with pytest.raises(DataError, match="image of 5 channels"):
        JpegCompression()({"input": textured(5)}, seed_of(0))


def test_distribution_of_the_quality():
    quality = draws(JpegCompression(quality=(30, 39)).draw, 1000).quality
    counts = np.bincount(quality - 30, minlength=10)
    assert len(counts) == 10 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_downscale_equals_pillow():
    augmentation = Downscale(factor=(1.0, 6.0), on="both")

    def resize(image, height, width):
        channels = [Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0)]
        resized = [np.asarray(c.resize((width, height), Image.Resampling.BICUBIC)) for c in channels]
        return np.clip(np.stack(resized, -1), 0, 1)

    for number in SEEDS:
        factor = augmentation.draw(seed_of(number)).factor.numpy()
        changed = compiled(augmentation)(PAIR, seed_of(number))
        for role, image in PAIR.items():
            small = resize(image, round(HEIGHT / factor), round(WIDTH / factor))
            np.testing.assert_allclose(changed[role], resize(small, HEIGHT, WIDTH), atol=1e-3)


def test_downscale_goes_no_lower_than_one_pixel():
    image = textured(3)
    changed = Downscale(factor=(100, 100))({"input": image}, seed_of(0))["input"]
    assert np.ptp(changed, axis=(0, 1)).max() < 1e-6  # one colour
    np.testing.assert_allclose(changed[0, 0], image.mean((0, 1)), atol=0.1)


def test_distribution_of_the_factor():
    assert_uniform(draws(Downscale(factor=(2, 5)).draw, 1000).factor, 2, 5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GaussianBlur(sigma=(-1, 2)), "GaussianBlur.sigma"),
        (lambda: GaussianBlur(sigma=(2, 1)), "GaussianBlur.sigma"),
        (lambda: GaussianBlur(sigma=(1, 2, 3)), "GaussianBlur.sigma"),
        (lambda: GaussianBlur(on="all"), "GaussianBlur.on"),
        (lambda: Noise(sigma=(0, float("nan"))), "Noise.sigma"),
        (lambda: Noise(gain=(-0.1, 0)), "Noise.gain"),
        (lambda: Noise(sigma=(0, 0)), "leave Noise out"),
        (lambda: Noise(probability=1.01), "Noise.probability"),
        (lambda: Cutout(side=(0.5, 1.5)), "Cutout.side"),
        (lambda: Cutout(holes=0), "Cutout.holes"),
        (lambda: Cutout(fill=2), "Cutout.fill"),
        (lambda: JpegCompression(quality=(0, 50)), "JpegCompression.quality"),
        (lambda: JpegCompression(quality=(50, 101)), "JpegCompression.quality"),
        (lambda: JpegCompression(quality=(50.5, 60)), "JpegCompression.quality = .*whole numbers"),
        (lambda: Downscale(factor=(0.5, 2)), "Downscale.factor"),
    ],
)
def test_settings_are_refused_in_one_line(make, message):
    with pytest.raises(DataError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
