"""Labels keep their values, which are classes, in every resize and crop; against NumPy and Pillow."""

import numpy as np
import pytest
from PIL import Image

from data.augmentation.geometry import RandomResizedCrop
from data.pipeline import cropping, resizing

POSITIONS = np.arange(64 * 64).reshape(64, 64, 1).astype(np.uint16)
"""Every pixel is different, so that each tells where it comes from."""

IDS = (np.random.default_rng(0).random((64, 64, 1)) < 0.5).astype(np.uint8) * 200


def frame(**settings):
    given = {"load_size": 72, "crop_size": 48, "resize": "resize", "flip": True, "random_resized_crop": None}
    return cropping.make_resize_and_crop(**given | settings)


def nearest(length, new_length):
    """The pixel that each pixel of a resized axis shows: that in which its centre lies."""
    return ((2 * np.arange(new_length) + 1) * length) // (2 * new_length)


def test_interpolation_makes_classes_that_do_not_exist():
    mixed = resizing.resize(IDS, height=72, width=72).numpy()
    assert np.isin(mixed, [0, 200]).mean() < 0.8  # what labels are for
    kept = resizing.resize(IDS, height=72, width=72, is_labels=True).numpy()
    assert set(np.unique(kept)) == {0, 200}


@pytest.mark.parametrize("size", [(72, 72), (31, 100), (64, 64)])
def test_resized_labels_are_pillows_nearest_pixels(size):
    found = resizing.resize(POSITIONS, height=size[0], width=size[1], is_labels=True).numpy()
    rows, columns = nearest(64, size[0]), nearest(64, size[1])
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, POSITIONS[rows[:, None], columns])
    whole = Image.fromarray(POSITIONS[..., 0].astype(np.float32))
    expected = np.asarray(whole.resize(size[::-1], Image.Resampling.NEAREST))
    # Centres exactly between two pixels, one in nine, are decided by Pillow's rounding.
    assert (found[..., 0] == expected).mean() >= (8 / 9) ** 2


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_window_of_labels_is_a_part_of_the_whole_beside_a_picture(mirrored):
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    window = resizing.Window(size=(72, 90), top=7, left=33, height=41, width=50, mirrored=mirrored)
    found, labels = resizing.resize_window((picture, POSITIONS), window, labels=(False, True))
    step = -1 if mirrored else 1
    whole = POSITIONS[nearest(64, 72)[:, None], nearest(64, 90)]
    np.testing.assert_array_equal(labels, whole[7:48, 33:83][:, ::step])
    [alone] = resizing.resize_window((picture,), window)
    np.testing.assert_array_equal(found, alone)  # bit for bit


@pytest.mark.parametrize("resize", ["resize", "resize_with_pad"])
def test_crops_of_labels_show_the_place_of_the_picture(resize):
    """A picture whose value is its place: that of its labels differs by less than a pixel."""
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    place = np.stack([rows, columns], axis=-1)
    cut = frame(resize=resize)
    mirrored, corners = set(), set()
    for example in range(12):
        seed = cropping.example_seed(0, 0, example)
        arguments = {"padding": (-1, 0), "labels": (False, True)}
        picture, labels = (x.numpy() for x in cut.training((place, POSITIONS), seed, **arguments))
        assert np.isin(labels, POSITIONS).all() and labels.shape == (48, 48, 1)
        found = np.concatenate([labels // 64, labels % 64], axis=-1)
        inner = (slice(6, -6), slice(6, -6))  # the cubic kernel bends the ramp at the border
        assert np.abs(picture - found)[inner].max() <= 0.5 + 0.1
        mirrored.add(bool(labels[0, 0] > labels[0, -1]))
        corners.add(int(labels.min()))
        top = left = None
        for row in range(25):
            for column in range(25):
                whole = POSITIONS[nearest(64, 72)[:, None], nearest(64, 72)]
                part = whole[row : row + 48, column : column + 48]
                if np.array_equal(part, labels) or np.array_equal(part[:, ::-1], labels):
                    top, left = row, column
        assert top is not None and left is not None  # exactly a crop of the resized labels
    assert mirrored == {False, True} and len(corners) > 6


def test_padding_and_evaluation():
    wide = IDS[:32]
    padded = resizing.resize_with_pad(wide, height=72, width=72, value=7, is_labels=True).numpy()
    expected = np.full((72, 72, 1), 7)
    expected[18:54] = wide[nearest(32, 36)[:, None], nearest(64, 72)]
    np.testing.assert_array_equal(padded, expected)
    [whole] = frame().evaluation((IDS,), padding=(0,), labels=(True,))
    np.testing.assert_array_equal(whole, IDS[nearest(64, 48)[:, None], nearest(64, 48)])
    [centre] = frame(load_size=0).evaluation((IDS,), padding=(0,), labels=(True,))
    np.testing.assert_array_equal(centre, IDS[8:56, 8:56])


def test_random_resized_crops():
    crop = RandomResizedCrop(scale=(0.1, 0.6))
    cut = frame(random_resized_crop=crop, flip=False)
    for example in range(5):
        seed = cropping.example_seed(0, 0, example)
        [labels] = (x.numpy() for x in cut.training((POSITIONS,), seed, padding=(0,), labels=(True,)))
        rows, columns = labels[:, 0, 0] // 64, labels[0, :, 0] % 64
        for axis in (rows, columns):  # of one size, spread evenly, from the first pixel to the last
            length = int(axis[-1]) - int(axis[0]) + 1
            candidates = [first + nearest(n, 48) for n in range(length, length + 2) for first in
                          range(int(axis[0]) - 1, int(axis[0]) + 1)]  # fmt: skip
            assert any(np.array_equal(axis, candidate) for candidate in candidates)
        np.testing.assert_array_equal(labels, POSITIONS[rows[:, None], columns])
