"""Crops, flips and rotations against Pillow, NumPy and SciPy; random draws as in torchvision."""

import functools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from PIL import Image

from data.augmentation import Crop, Flip, RandomResizedCrop, Rotation
from data.errors import DataError

HEIGHT, WIDTH = 24, 31
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
def compiled(augmentation, **settings):
    """The augmentation of a pair of any size as one graph."""
    spec = {role: tf.TensorSpec([None, None, image.shape[-1]]) for role, image in PAIR.items()}
    return tf.function(
        lambda images, seed: augmentation(images, seed=seed, **settings),
        input_signature=[spec, tf.TensorSpec([2], tf.int64)],
    )


def draws(draw, count):
    """The draws of `count` examples, inside tf.data: arrays in the structure of one draw."""
    examples = tf.data.Dataset.range(count).map(lambda k: draw(tf.stack([k, 7]))).batch(count)
    return tf.nest.map_structure(lambda drawn: drawn.numpy(), examples.get_single_element())


def assert_uniform(numbers, low, high):
    assert scipy.stats.kstest(numbers, "uniform", (low, high - low)).pvalue > 1e-3


def pillow_resize(image, height, width):
    """Pillow's bicubic resizing of floats, channel by channel, clipped."""
    channels = [Image.fromarray(channel) for channel in np.moveaxis(image, -1, 0)]
    resized = [np.asarray(c.resize((width, height), Image.Resampling.BICUBIC)) for c in channels]
    return np.clip(np.stack(resized, -1), 0, 1)


@pytest.mark.parametrize("size", [(20, 20), (8, 40), None])
def test_random_resized_crop_equals_pillow(size):
    augmentation = RandomResizedCrop(scale=(0.1, 0.9))
    run = compiled(augmentation, size=size)
    for number in SEEDS:
        box = augmentation.draw(seed_of(number), HEIGHT, WIDTH)
        rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        changed = run(PAIR, seed_of(number))
        for role, image in PAIR.items():
            expected = pillow_resize(image[rows, columns], *(size or (HEIGHT, WIDTH)))
            np.testing.assert_allclose(changed[role], expected, atol=1e-3)
            assert np.abs(changed[role] - expected).mean() < 3e-4


def test_random_resized_crop_draws_area_and_ratio_evenly():
    side = 4000  # large, so that rounding to pixels is not seen
    augmentation = RandomResizedCrop(scale=(0.2, 0.5), ratio=(0.7, 1.5))
    boxes = draws(lambda seed: augmentation.draw(seed, side, side), 500)
    area, ratio = boxes.height * boxes.width / side**2, np.log(boxes.width / boxes.height)
    top, left = boxes.top / (side - boxes.height), boxes.left / (side - boxes.width)
    assert_uniform(area, 0.2, 0.5)
    assert_uniform(ratio, np.log(0.7), np.log(1.5))
    assert_uniform(top, 0, 1)
    assert_uniform(left, 0, 1)
    assert np.abs(np.corrcoef([area, ratio, top, left]) - np.eye(4)).max() < 0.18  # 4 sigma


def torchvision_box(rng, height, width, scale, ratio):
    """Height and width of the part, as torchvision's RandomResizedCrop.get_params draws them."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return h, w
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    return (height, round(height * ratio[1])) if width / height > ratio[1] else (height, width)


def test_random_resized_crop_draws_again_what_does_not_fit():
    height, width, scale, ratio = 40, 100, (0.2, 1.0), (0.5, 2.0)
    augmentation = RandomResizedCrop(scale=scale, ratio=ratio)
    boxes = draws(lambda seed: augmentation.draw(seed, height, width), 2000)
    assert (boxes.top >= 0).all() and (boxes.top + boxes.height <= height).all()
    assert (boxes.left >= 0).all() and (boxes.left + boxes.width <= width).all()
    rng = np.random.default_rng(0)
    expected = np.array([torchvision_box(rng, height, width, scale, ratio) for _ in range(4000)])
    for ours, theirs in zip((boxes.height, boxes.width), expected.T, strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize(
    "size, expected",
    [((12, 300), (0, 142, 12, 16)), ((300, 12), (142, 0, 16, 12)), ((1, 1), (0, 0, 1, 1))],
)
def test_random_resized_crop_is_centred_if_nothing_fits(size, expected):
    box = RandomResizedCrop(scale=(0.9, 1.0)).draw(seed_of(0), *size)
    assert tuple(map(int, box)) == expected


@pytest.mark.parametrize(
    "pad, fill, size",
    [(0, "reflect", (10, 31)), (3, "reflect", None), (40, "reflect", (24, 30)), (5, 0.25, (30, 12))],
)
def test_crop_equals_numpy(pad, fill, size):
    augmentation = Crop(pad=pad, fill=fill)
    run = compiled(augmentation, size=size)
    height, width = size or (HEIGHT, WIDTH)
    mode = {"mode": "symmetric"} if fill == "reflect" else {"constant_values": fill}
    for number in SEEDS:
        box = augmentation.draw(seed_of(number), HEIGHT, WIDTH, (height, width))
        changed = run(PAIR, seed_of(number))
        for role, image in PAIR.items():
            padded = np.pad(image, [(pad, pad), (pad, pad), (0, 0)], **mode)
            expected = padded[box.top : box.top + height, box.left : box.left + width]
            np.testing.assert_array_equal(changed[role], expected)


def test_crop_places_are_equally_likely():
    places = draws(lambda seed: Crop(pad=1).draw(seed, 6, 7, (6, 5)), 1500)
    counts = np.histogram2d(places.top, places.left, bins=[range(4), range(6)])[0]  # 3 x 5 places
    assert counts.sum() == 1500
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="larger than the padded image"):
        compiled(Crop(pad=1), size=(HEIGHT + 3, 4))(PAIR, seed_of(0))


def test_flip_equals_numpy():
    augmentation = Flip(vertical=True)
    run = compiled(augmentation)
    seen = set()
    for number in range(20):
        mirrored = augmentation.draw(seed_of(number))
        steps = 1 - 2 * int(mirrored.vertical), 1 - 2 * int(mirrored.horizontal)
        seen.add(steps)
        changed = run(PAIR, seed_of(number))
        for role, image in PAIR.items():
            np.testing.assert_array_equal(changed[role], image[:: steps[0], :: steps[1]])
    assert len(seen) == 4


def test_flip_probabilities():
    mirrored = draws(Flip(vertical=True, probability=0.3).draw, 2000)
    both = np.mean(mirrored.horizontal & mirrored.vertical)
    assert abs(mirrored.horizontal.mean() - 0.3) < 0.04  # 4 sigma
    assert abs(mirrored.vertical.mean() - 0.3) < 0.04
    assert abs(both - 0.09) < 0.026
    assert not draws(Flip().draw, 20).vertical.any()
    assert not draws(Flip(horizontal=False, vertical=True).draw, 20).horizontal.any()


@pytest.mark.parametrize("fill", ["reflect", 0.25])
def test_rotation_equals_scipy(fill):
    augmentation = Rotation(degrees=(-180, 180), fill=fill)
    run = compiled(augmentation)
    border = {"mode": "reflect"} if fill == "reflect" else {"mode": "grid-constant", "cval": fill}
    for number in SEEDS:
        degrees = float(augmentation.draw(seed_of(number)).degrees)
        changed = run(PAIR, seed_of(number))
        for role, image in PAIR.items():
            expected = scipy.ndimage.rotate(image, degrees, reshape=False, order=1, **border)
            np.testing.assert_allclose(changed[role], expected, atol=1e-4)


def test_rotation_is_counter_clockwise():
    image = textured(3, 9, 9)
    turned = Rotation(degrees=(90, 90))({"input": image}, seed_of(0))["input"]
    np.testing.assert_allclose(turned, np.rot90(image), atol=1e-5)
    pillow = np.stack([Image.fromarray(c).rotate(90) for c in np.moveaxis(image, -1, 0)], -1)
    np.testing.assert_allclose(turned, pillow, atol=1e-5)


def test_rotation_angles_are_evenly_distributed():
    assert_uniform(draws(Rotation(degrees=(-5, 20)).draw, 1000).degrees, -5, 20)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomResizedCrop(scale=(0, 1)), "RandomResizedCrop.scale"),
        (lambda: RandomResizedCrop(scale=(0.5, 1.1)), "RandomResizedCrop.scale"),
        (lambda: RandomResizedCrop(scale=0.5), "RandomResizedCrop.scale = 0.5: must be two numbers"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "RandomResizedCrop.ratio"),
        (lambda: RandomResizedCrop(ratio=(1, float("inf"))), "RandomResizedCrop.ratio"),
        (lambda: Crop(pad=-1), "Crop.pad"),
        (lambda: Crop(pad=1.5), "Crop.pad"),
        (lambda: Crop(pad=1, fill="mirror"), "Crop.fill = 'mirror'"),
        (lambda: Crop(pad=1, fill=255), "Crop.fill"),
        (lambda: Flip(probability=1.5), "Flip.probability"),
        (lambda: Flip(horizontal=False), "leave Flip out"),
        (lambda: Rotation(degrees=(0, 361)), "Rotation.degrees"),
        (lambda: Rotation(degrees=("a", "b")), "Rotation.degrees"),
        (lambda: Rotation(fill=-0.1), "Rotation.fill"),
        (lambda: Rotation(probability=float("nan")), "Rotation.probability"),
    ],
)
def test_settings_are_refused_in_one_line(make, message):
    with pytest.raises(DataError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
