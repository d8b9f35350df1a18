"""Resizing against Pillow; cropping and flipping against slices of the image."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import framing, resizing


def textured(height, width, channels=3):
    """Hard edges and noise, where resampling filters overshoot: uint8 [height, width, channels]."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    edges = 255 * ((x // 7 + y // 5) % 2)[:, :, None]
    noise = rng.integers(0, 256, (height, width, channels))
    return np.where(rng.random((height, width, 1)) < 0.5, edges, noise).astype(np.uint8)


@pytest.mark.parametrize(
    "size, new_size",
    [
        ((256, 256), (286, 286)),  # the usual enlargement
        ((50, 80), (64, 90)),
        ((100, 100), (40, 40)),  # shrinking, with antialiasing
        ((61, 97), (30, 31)),
        ((33, 90), (64, 64)),  # one side each way
    ],
)
def test_resize_equals_pillow(size, new_size):
    image = textured(*size)
    resized = resizing.resize(image, height=new_size[0], width=new_size[1]).numpy().astype(int)
    expected = Image.fromarray(image).resize(new_size[::-1], Image.Resampling.BICUBIC)
    difference = np.abs(resized - np.asarray(expected))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


def test_resize_to_the_same_size_changes_nothing():
    image = textured(20, 30, 1)
    np.testing.assert_array_equal(resizing.resize(image, height=20, width=30), image)


def cut_of(seed, size=8, flip=True):
    """Crops an image of coordinates, so that the result tells where it came from."""
    y, x = np.mgrid[:12, :15]
    image = np.stack([y, x], -1).astype(np.uint8)
    other = (10 * y + 1)[:, :, None].astype(np.uint8)
    frame = framing.Framing(load_size=None, crop_size=(size, size), flip=flip)
    cut, other_cut = frame.training((image, other), seed, padding=(0, 0))
    np.testing.assert_array_equal(other_cut[:, :, 0], 10 * cut[:, :, 0] + 1)  # cut alike
    return cut.numpy()


def test_crops_and_flips_cover_all_places_evenly():
    places, flips = np.zeros((5, 8)), 0
    for example in range(600):
        cut = cut_of(framing.example_seed(0, 0, example))
        flipped = cut[0, 0, 1] > cut[0, -1, 1]
        expected = cut[:, ::-1] if flipped else cut
        top, left = expected[0, 0]
        y, x = np.mgrid[top : top + 8, left : left + 8]
        np.testing.assert_array_equal(expected, np.stack([y, x], -1))
        places[top, left] += 1
        flips += flipped
    assert 240 < flips < 360  # 300 +- 5 sigma
    assert places.all()
    chi_squared = ((places - 15) ** 2 / 15).sum()
    assert chi_squared < 83  # 39 degrees of freedom, 5 sigma


def test_no_flip_when_switched_off():
    for example in range(20):
        cut = cut_of(framing.example_seed(0, 0, example), flip=False)
        assert cut[0, 0, 1] < cut[0, -1, 1]


def test_seed_depends_on_each_of_its_parts():
    seeds = [framing.example_seed(*parts) for parts in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]]
    assert len({tuple(seed.numpy()) for seed in seeds}) == 4
    for dtype in (tf.int32, tf.int64):
        again = framing.example_seed(0, tf.constant(0, dtype), tf.constant(1, dtype))
        np.testing.assert_array_equal(again, seeds[0])


def test_centre_crop():
    image = np.arange(5 * 7).reshape(5, 7, 1).astype(np.uint8)
    frame = framing.Framing(load_size=None, crop_size=(3, 3))
    np.testing.assert_array_equal(frame.evaluation((image,), padding=(0,))[0], image[1:4, 2:5])
