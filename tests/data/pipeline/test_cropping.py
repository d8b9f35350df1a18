"""Resizing against Pillow; cropping and flipping against slices of the image."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.augmentation.geometry import RandomResizedCrop
from data.errors import DataError
from data.pipeline import cropping, resizing


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


def test_resize_is_at_most_two_levels_off_pillow_at_any_ratio():
    rng = np.random.default_rng(0)
    sizes = [tuple(map(int, rng.integers(8, 160, 4))) for _ in range(60)]
    # Found among 2,500: here two levels occur.
    sizes += [(65, 112, 152, 106), (15, 20, 65, 134), (136, 28, 145, 25), (27, 112, 71, 72)]
    largest, differing, values = [], 0, 0
    for height, width, new_height, new_width in sizes:
        image = textured(height, width)
        resized = resizing.resize(image, height=new_height, width=new_width).numpy().astype(int)
        pillow = Image.fromarray(image)
        expected = pillow.resize(
            (new_width, height), Image.Resampling.BICUBIC
        )  # newer ones may take rows first
        expected = expected.resize((new_width, new_height), Image.Resampling.BICUBIC)
        if new_height >= height:
            once = pillow.resize((new_width, new_height), Image.Resampling.BICUBIC)
            np.testing.assert_array_equal(np.asarray(once), expected)
        difference = np.abs(resized - np.asarray(expected))
        largest.append(difference.max())
        differing, values = differing + (difference > 0).sum(), values + difference.size
    assert max(largest) == 2 and largest[-4:] == [2, 2, 2, 2]
    assert differing / values < 0.0005


@pytest.mark.parametrize("new_size", [(64, 90), (21, 33), (30, 100)])
@pytest.mark.parametrize("dtype, scale, tolerance", [(np.uint16, 257, 1.0), (np.float32, 0.01, 1e-5)])
def test_deep_images_keep_dtype_and_range(new_size, dtype, scale, tolerance):
    image = (textured(50, 80, 1) * np.float64(scale)).astype(dtype)
    resized = resizing.resize(image, height=new_size[0], width=new_size[1]).numpy()
    assert resized.dtype == dtype
    expected = image[..., 0].astype(np.float32)
    for width, height in ((new_size[1], 50), new_size[::-1]):  # columns, then rows
        expected = Image.fromarray(expected).resize((width, height), Image.Resampling.BICUBIC)
        expected = np.asarray(expected)
        if dtype == np.uint16:  # whole numbers after each pass; of floats, overshoots are kept
            expected = np.clip(np.round(expected), 0, 65535)
    np.testing.assert_allclose(resized[..., 0], expected, atol=tolerance)
    assert dtype == np.uint16 or expected.min() < 0 or new_size == (21, 33)


@pytest.mark.parametrize("size, inner", [((30, 60), (20, 40)), ((60, 30), (32, 16)), ((10, 11), (32, 35))])
def test_resize_with_pad_keeps_the_aspect_ratio(size, inner):
    image = textured(*size)
    padded = resizing.resize_with_pad(image, height=32, width=40, value=7).numpy().astype(int)
    expected = np.full((32, 40, 3), 7)
    top, left = (32 - inner[0]) // 2, (40 - inner[1]) // 2
    resized = Image.fromarray(image).resize(inner[::-1], Image.Resampling.BICUBIC)
    expected[top : top + inner[0], left : left + inner[1]] = np.asarray(resized)
    difference = np.abs(padded - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(45, 70), (20, 30)])
def test_a_window_is_a_part_of_the_whole(size, mirrored):
    image = textured(*size)
    whole = resizing.resize(image, height=60, width=90).numpy()
    window = resizing.Window(size=(60, 90), top=7, left=33, height=41, width=50, mirrored=mirrored)
    part = resizing.resize_window((image, image[..., :1]), window)
    expected = whole[7:48, 33:83][:, :: -1 if mirrored else 1]
    # In other blocks, sums come in another order: a grey level of .5 may be rounded the other way.
    assert np.abs(part[0].numpy().astype(int) - expected).max() <= 1
    assert (part[0].numpy() == expected).mean() > 0.999
    np.testing.assert_array_equal(part[1], part[0][..., :1])


def test_rectangles_and_random_resized_crops():
    image = textured(50, 80)
    frame = cropping.make_resize_and_crop(
        load_size=(40, 60), crop_size=(24, 40), resize="resize", flip=False, random_resized_crop=None
    )
    seed = cropping.example_seed(0, 0, 3)
    [cut] = frame.training((image,), seed, padding=(0,))
    whole = resizing.resize(image, height=40, width=60).numpy()
    places = [
        (top, left)
        for top in range(17)
        for left in range(21)
        if (np.abs(whole[top : top + 24, left : left + 40].astype(int) - cut) <= 1).all()
    ]
    assert len(places) == 1
    crop = RandomResizedCrop(scale=(0.3, 0.6))
    [cut] = dataclasses.replace(frame, random_resized_crop=crop).training((image,), seed, padding=(0,))
    box = [int(side) for side in crop.draw(tf.random.split(seed, 3)[0], 50, 80)]
    part = Image.fromarray(image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]])
    part = part.resize((40, part.height), Image.Resampling.BICUBIC)  # newer Pillows may take rows first
    expected = np.asarray(part.resize((40, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(cut.numpy() - expected).max() <= 1
    assert 0.3 * 4000 <= box[2] * box[3] <= 0.6 * 4000 * 1.05


@pytest.mark.parametrize("resize", ["resize", "resize_with_pad"])
@pytest.mark.parametrize("crop", [None, RandomResizedCrop(scale=(0.3, 0.6))])
def test_random_crops_end_after_their_epochs(resize, crop):
    """As CUT's code sets load_size to crop_size in the epochs after the n-th, and goes on to mirror."""
    frame = cropping.make_resize_and_crop(
        load_size=(40, 60), crop_size=(24, 40), resize=resize, flip=True, random_resized_crop=crop
    )
    ending = dataclasses.replace(frame, random_crop_epochs=7)
    image = textured(50, 80)
    [whole] = frame.evaluation((image,), padding=(9,))
    mirrored = 0
    for number in range(12):
        seed = cropping.example_seed(0, 0, number)
        [always] = frame.training((image,), seed, padding=(9,))
        for epoch in (0, 6, tf.constant(6, tf.int64)):
            [before] = ending.training((image,), seed, padding=(9,), epoch=epoch)
            np.testing.assert_array_equal(before, always)
        [after] = ending.training((image,), seed, padding=(9,), epoch=tf.constant(7, tf.int64))
        is_mirrored = np.abs(after.numpy().astype(int) - whole[:, ::-1]).max() <= 1
        assert is_mirrored or np.abs(after.numpy().astype(int) - whole).max() <= 1
        mirrored += is_mirrored
    assert 0 < mirrored < 12
    cut_only = dataclasses.replace(ending, load_size=None, random_resized_crop=None)
    [after] = cut_only.training((image,), seed, padding=(9,), epoch=7)
    [always] = dataclasses.replace(cut_only, random_crop_epochs=None).training((image,), seed, padding=(9,))
    np.testing.assert_array_equal(after, always)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"random_crop_epochs": -1}, "random_crop_epochs = -1: must be at least 0"),
        ({"load_size": (286, 200)}, "crop_size = 256 is larger than load_size = .286, 200."),
        ({"crop_size": (1, 2, 3)}, "crop_size = .1, 2, 3.: must be"),
        ({"resize": "stretch"}, "resize = 'stretch': must be 'resize' or 'resize_with_pad'"),
    ],
)
def test_settings_that_cannot_be_used(settings, match):
    usual = {
        "load_size": 286,
        "crop_size": 256,
        "resize": "resize",
        "flip": True,
        "random_resized_crop": None,
    }
    with pytest.raises(DataError, match=match):
        cropping.make_resize_and_crop(**usual | settings)


def test_resize_to_the_same_size_changes_nothing():
    image = textured(20, 30, 1)
    np.testing.assert_array_equal(resizing.resize(image, height=20, width=30), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_window_of_images_that_have_the_size_is_cut(dtype, mirrored):
    image = np.random.default_rng(7).uniform(0, 250, (40, 30, 3)).astype(dtype)
    classes = np.arange(1200, dtype=np.uint16).reshape(40, 30, 1)
    window = resizing.Window(size=(40, 30), top=3, left=5, height=17, width=21, mirrored=mirrored)
    read = tf.function(
        lambda images: resizing.resize_window(images, window, labels=(False, True)),
        input_signature=[
            (tf.TensorSpec([None, None, 3], image.dtype), tf.TensorSpec([None, None, 1], tf.uint16))
        ],
    )
    for found, whole in zip(read((image, classes)), (image, classes), strict=True):
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[3:20, 5:26][:, :: -1 if mirrored else 1])


def cut_of(seed, size=8, flip=True):
    """Crops an image of coordinates, so that the result tells where it came from."""
    y, x = np.mgrid[:12, :15]
    image = np.stack([y, x], -1).astype(np.uint8)
    other = (10 * y + 1)[:, :, None].astype(np.uint8)
    frame = cropping.ResizeAndCrop(load_size=None, crop_size=(size, size), flip=flip)
    cut, other_cut = frame.training((image, other), seed, padding=(0, 0))
    np.testing.assert_array_equal(other_cut[:, :, 0], 10 * cut[:, :, 0] + 1)  # cut alike
    return cut.numpy()


def test_crops_and_flips_cover_all_places_evenly():
    places, flips = np.zeros((5, 8)), 0
    for example in range(600):
        cut = cut_of(cropping.example_seed(0, 0, example))
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
        cut = cut_of(cropping.example_seed(0, 0, example), flip=False)
        assert cut[0, 0, 1] < cut[0, -1, 1]


def test_seed_depends_on_each_of_its_parts():
    seeds = [cropping.example_seed(*parts) for parts in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]]
    assert len({tuple(seed.numpy()) for seed in seeds}) == 4
    for dtype in (tf.int32, tf.int64):
        again = cropping.example_seed(0, tf.constant(0, dtype), tf.constant(1, dtype))
        np.testing.assert_array_equal(again, seeds[0])


def test_centre_crop():
    image = np.arange(5 * 7).reshape(5, 7, 1).astype(np.uint8)
    frame = cropping.ResizeAndCrop(load_size=None, crop_size=(3, 3))
    np.testing.assert_array_equal(frame.evaluation((image,), padding=(0,))[0], image[1:4, 2:5])
