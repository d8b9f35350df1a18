"""The network that ships: the same numbers everywhere, and distances that grow with a degradation."""

import pathlib

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image

from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.kernel_distance import kernel_distance
from engine.evaluation.random_features import RandomFeatures, random_features


def ramp(size=32, channels=3):
    """Smooth pictures with an edge: uint8 [2, size, size, channels]."""
    row, column, channel = np.meshgrid(*map(np.arange, (size, size, channels)), indexing="ij")
    levels = 4 * row + 3 * column + 20 * channel
    return np.stack([levels % 256, 255 - levels % 200]).astype(np.uint8)


def features_by_scipy(image):
    """The documented rule for one image [H, W, C] in [-1, 1]."""
    generator = np.random.PCG64(20)

    def filters(size, channels):
        raw = generator.random_raw(2 * size * size * channels * 16).reshape(2, -1)
        u, v = (np.right_shift(raw, np.uint64(11)) + 0.5) / 2**53
        found = (np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)).reshape(size, size, channels, 16)
        found = found - found.mean((0, 1))
        return found / np.linalg.norm(found.reshape(-1, 16), axis=0)

    def filtered(x, weights):
        return np.stack(
            [
                sum(
                    scipy.ndimage.correlate(x[..., c], weights[..., c, f], mode="mirror")
                    for c in range(x.shape[-1])
                )
                for f in range(16)
            ],
            axis=-1,
        )

    def halved(x):
        height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        return x[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))

    def log(x):
        return np.log((x + 0.01) / 0.1)

    found = [image.mean((0, 1)) / 0.5, log(image.std((0, 1)))]
    for _ in range(3):
        contrast = np.abs(filtered(image, filters(5, image.shape[-1])))
        texture = np.abs(filtered(halved(contrast), filters(3, 16)))
        found += [log(contrast.mean((0, 1))), log(contrast).mean((0, 1)), log(texture.mean((0, 1)))]
        image = halved(image)
    return np.concatenate(found)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (27, 1)])
def test_features_follow_the_documented_rule(size, channels):
    images = ramp(size, channels)
    found = tf.function(random_features)(images)
    assert found.dtype == tf.float32 and found.shape == (2, 144 + 2 * channels)
    for image, features in zip(images, found, strict=True):
        np.testing.assert_allclose(features, features_by_scipy(image / 127.5 - 1), atol=1e-4)


def test_features_depend_on_the_picture_not_on_its_depth():
    images = ramp()
    expected = random_features(images)
    deep = images.astype(np.uint16) * 257
    signed = (images / 127.5 - 1).astype(np.float32)
    for same in (random_features(deep), random_features(signed, (-1.0, 1.0))):
        np.testing.assert_allclose(same, expected, atol=1e-5)
    with pytest.raises(TypeError, match="random features: the range of float32 images is unknown"):
        random_features(signed)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, not 15 x 32; raise"):
        random_features(ramp()[:, :15])
    assert np.all(np.isfinite(random_features(ramp()[:, :16, :16])))
    assert np.all(np.isfinite(random_features(np.zeros((1, 16, 16, 3), np.uint8))))


@pytest.fixture(scope="module")
def photos(real_images):
    """Facade photos: float64 [106, 64, 64, 3] in [0, 255]."""
    paths = sorted(pathlib.Path(real_images, "facades", "test").glob("*.jpg"))
    halves = (Image.open(path).crop((0, 0, 256, 256)).resize((64, 64)) for path in paths)
    return np.stack([np.asarray(half, np.float64) for half in halves])


def distances(reference, photos):
    """KID and FID of photos to reference features."""
    features = RandomFeatures().build()(np.clip(np.round(photos), 0, 255).astype(np.uint8)).numpy()
    moments = []
    for rows in (reference, features):
        moments.append(FeatureMoments(rows.shape[1]))
        moments[-1].add(rows)
    return kernel_distance(reference, features).value, frechet_distance(*moments)


@pytest.fixture(scope="module")
def reference(photos):
    """Features of every second photo; the others are degraded."""
    return random_features(np.round(photos[::2]).astype(np.uint8)).numpy()


# Noise of 2 levels is less than two halves of these photos differ by.
DEGRADATIONS = {
    "noise": lambda x, k: x + np.random.default_rng(0).normal(size=x.shape) * (0, 5, 10, 20, 40)[k],
    "blur": lambda x, k: scipy.ndimage.gaussian_filter(x, (0, *2 * [(0, 0.5, 1, 2, 4)[k]], 0)),
    "colour": lambda x, k: x * (1 + np.array([1, 0, -1]) * (0, 0.1, 0.2, 0.3, 0.5)[k]),
}


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_distances_grow_with_a_degradation_of_real_photos(photos, reference, name):
    found = np.array([distances(reference, DEGRADATIONS[name](photos[1::2], k)) for k in range(5)])
    assert np.all(np.diff(found, axis=0) > 0), found
    assert abs(found[0, 0]) < found[-1, 0] / 20  # two halves of one set are near each other
