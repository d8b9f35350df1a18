"""Pictures of an evaluation get the size that the data set gives its own."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from data.description import DataDescription
from data.errors import DataError
from data.pipeline.cropping import make_resize_and_crop
from engine.pictures.example_geometry import ExampleGeometry
from engine.pictures.picture_input import Picture

CROPPED = DataDescription(
    dataset="mine",
    train_examples=1,
    evaluation_split="val",
    is_paired=True,
    colour_space="rgb",
    shapes={"input": (4, 6, 1), "target": (16, 24, 1)},  # super-resolution, four times
    dtypes={"input": "float32", "target": "float32"},
    crop_size=(16, 24),
)
RESIZED = dataclasses.replace(CROPPED, load_size=(20, 30))
PATHS = {"input": "in.png", "target": "out.png", "side_map": "map.png"}


def picture(height, width):
    """The pixels are numbered."""
    pixels = np.arange(height * width, dtype=np.uint16).reshape(height, width, 1)
    return Picture(pixels=pixels, value_range=(0, 65535))


@pytest.mark.parametrize("height, width", [(4, 6), (5, 9), (9, 7)])
def test_a_smaller_input_shows_what_the_crop_of_the_target_shows(height, width):
    small, large = picture(height, width), picture(4 * height, 4 * width)
    images = ExampleGeometry(CROPPED).fit({"input": small, "target": large}, PATHS)
    assert images["input"].shape == (4, 6, 1) and images["target"].shape == (16, 24, 1)
    row, column = divmod(int(images["input"][0, 0, 0]), width)
    assert divmod(int(images["target"][0, 0, 0]), 4 * width) == (4 * row, 4 * column)
    assert np.array_equal(images["target"][..., 0], large.pixels[4 * row :, 4 * column :, 0][:16, :24])


def test_the_crop_is_that_of_the_data_pipeline():
    description = dataclasses.replace(CROPPED, shapes={"input": (16, 24, 1), "target": (16, 24, 1)})
    whole = picture(19, 31)
    cropped = make_resize_and_crop(
        load_size=0, crop_size=(16, 24), resize="resize", flip=False, random_resized_crop=None
    ).evaluation([whole.pixels], padding=[0])
    images = ExampleGeometry(description).fit(dict.fromkeys(PATHS, whole), PATHS)
    for image in images.values():
        np.testing.assert_array_equal(image, cropped[0])


def test_an_input_of_the_size_of_the_target_is_made_smaller_as_pillow_does():
    rng = np.random.default_rng(0)
    whole = Picture(pixels=rng.integers(0, 256, (40, 50, 1), dtype=np.uint8), value_range=(0, 255))
    images = ExampleGeometry(RESIZED).fit({"input": whole, "target": whole}, PATHS)
    resized = Image.fromarray(whole.pixels[..., 0]).resize((24, 16), Image.Resampling.BICUBIC)
    smaller = resized.resize((6, 4), Image.Resampling.BICUBIC)
    for role, expected in (("target", resized), ("input", smaller)):
        assert np.abs(images[role][..., 0].numpy().astype(int) - np.asarray(expected)).max() <= 2


def test_sizes_that_do_not_agree_are_refused():
    for description in (CROPPED, RESIZED):
        fit = ExampleGeometry(description).fit
        with pytest.raises(DataError, match="in.png: is 6x5, but out.png is 24x16; .* 4 times smaller"):
            fit({"input": picture(5, 6), "target": picture(16, 24)}, PATHS)
        with pytest.raises(DataError, match="map.png: is 6x4, but out.png is 24x16; give both the same size"):
            fit({"input": picture(4, 6), "target": picture(16, 24), "side_map": picture(4, 6)}, PATHS)
    with pytest.raises(DataError, match="out.png: is 20x16, smaller than the 24x16 of CROP_SIZE"):
        ExampleGeometry(CROPPED).fit({"input": picture(16, 20), "target": picture(16, 20)}, PATHS)
