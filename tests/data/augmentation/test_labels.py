"""Augmentations move labels by whole pixels and change none of their values."""

import numpy as np
import pytest
import tensorflow as tf

from data.augmentation import colour, degradation
from data.augmentation.compose import augment, not_geometric
from data.augmentation.geometry import Crop, Flip, RandomResizedCrop, Rotation

SIZE = 40
POSITIONS = (np.arange(SIZE * SIZE, dtype=np.float32) / (SIZE * SIZE)).reshape(SIZE, SIZE, 1)
PICTURE = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
PALETTE = np.float32([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0.2, 0.2, 1], [1, 1, 1]])
COLOURS = PALETTE[np.random.default_rng(1).integers(0, 5, (SIZE, SIZE))]

GEOMETRIC = (
    Crop(pad=6),
    Flip(vertical=True),
    Rotation(degrees=(-40, 40)),
    RandomResizedCrop(scale=(0.3, 1.0)),
)
OTHERS = (
    colour.ColourJitter(),
    colour.Grey(),
    colour.Invert(),
    degradation.GaussianBlur(on="both"),
    degradation.Noise(on="both"),
    degradation.Cutout(on="both"),
    degradation.JpegCompression(on="both"),
    degradation.Downscale(on="both"),
)


def seeds(count):
    return [tf.constant([number, 5], tf.int64) for number in range(count)]


def colours_of(image):
    return {tuple(pixel) for pixel in image.reshape(-1, image.shape[-1]).tolist()}


@pytest.mark.parametrize("augmentation", GEOMETRIC, ids=lambda a: type(a).__name__)
def test_moved_labels_have_no_new_values(augmentation):
    changes = 0
    for seed in seeds(8):
        images = {"input": COLOURS, "target": PICTURE, "side_map": POSITIONS}
        moved = augment((augmentation,), images, seed, labels=("input", "side_map"))
        assert colours_of(moved["input"].numpy()) <= colours_of(PALETTE)
        assert np.isin(moved["side_map"], POSITIONS).all()
        # Both go to the same place: the map tells from which pixel each colour comes.
        index = np.round(moved["side_map"].numpy()[..., 0] * SIZE * SIZE).astype(int)
        np.testing.assert_array_equal(moved["input"], COLOURS.reshape(-1, 3)[index])
        # The picture is changed as without labels, bit for bit.
        alone = augment((augmentation,), {"target": PICTURE}, seed)
        np.testing.assert_array_equal(moved["target"], alone["target"])
        changes += not np.array_equal(moved["input"], COLOURS)
    assert changes >= 4


def test_rotated_labels_are_the_pixels_nearest_to_the_rotated_positions():
    rotation = Rotation(degrees=(-90, 90))
    for seed in seeds(5):
        degrees = float(rotation.draw(seed).degrees)
        found = rotation({"side_map": POSITIONS}, seed, labels=("side_map",))["side_map"].numpy()[..., 0]
        rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float64)
        centre, angle = (SIZE - 1) / 2, np.deg2rad(degrees)
        x = np.cos(angle) * (columns - centre) - np.sin(angle) * (rows - centre) + centre
        y = np.sin(angle) * (columns - centre) + np.cos(angle) * (rows - centre) + centre
        inside = (x > 0) & (x < SIZE - 1) & (y > 0) & (y < SIZE - 1)
        # float32 positions cannot decide between two pixels that are equally near.
        clear = (np.abs(x % 1 - 0.5) > 1e-3) & (np.abs(y % 1 - 0.5) > 1e-3)
        expected = POSITIONS[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int), 0]
        assert clear[inside].mean() > 0.9
        np.testing.assert_array_equal(found[inside][clear[inside]], expected[clear[inside]])


@pytest.mark.parametrize("augmentation", OTHERS, ids=lambda a: type(a).__name__)
def test_only_geometry_changes_labels(augmentation):
    for labels in (("input",), ("input", "target")):
        images = {"input": COLOURS, "target": PICTURE}
        changed = augment((augmentation,), images, seeds(1)[0], labels=labels)
        np.testing.assert_array_equal(changed["input"], COLOURS)
        alone = PICTURE if "target" in labels else augment((augmentation,), {"target": PICTURE}, seeds(1)[0])
        expected = alone["target"] if isinstance(alone, dict) else alone
        np.testing.assert_array_equal(changed["target"], expected)
    assert not_geometric((*GEOMETRIC, augmentation)) == [type(augmentation).__name__]


def test_a_chain_of_all_in_a_graph():
    @tf.function
    def changed(seed):
        return augment((*OTHERS, *GEOMETRIC), {"input": PICTURE, "target": COLOURS}, seed, labels=("target",))

    for seed in seeds(4):
        images = changed(seed)
        assert colours_of(images["target"].numpy()) <= colours_of(PALETTE)
        assert len(colours_of(images["input"].numpy())) > 100
