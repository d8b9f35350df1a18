"""The sizes that networks take are found, and a graph pads pictures to them and crops the results."""

from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.exporting.picture_sizes import PictureSizes, find_sizes
from engine.exporting.translation import Translation
from engine.input_pipeline.recorded_data import describe
from models.networks.layers import Conv, image_input
from models.supervised import Supervised
from tests.engine.exporting.conftest import MadeUpData


def padded(images, multiple, smallest):
    """NumPy's mirror, or its border where an axis is too short."""
    for axis in (1, 2):
        size = images.shape[axis]
        missing = max(smallest, -(-size // multiple) * multiple) - size
        widths = [(0, missing if n == axis else 0) for n in range(4)]
        images = np.pad(images, widths, mode="reflect" if missing < size else "edge")
    return images


@pytest.mark.parametrize("factor", [1, 2])
def test_padding_is_numpys_and_is_cropped_again(factor):
    sizes = PictureSizes(trained=(16, 16), multiple=8, smallest=16, factor=Fraction(factor))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2])], autograph=False)
    def through(images):
        taken = sizes.pad(images)
        enlarged = tf.repeat(tf.repeat(taken, factor, axis=1), factor, axis=2)
        return taken, sizes.crop(enlarged, images)

    for height, width in ((16, 24), (17, 31), (9, 8), (1, 5), (30, 2)):
        images = np.random.default_rng(0).normal(size=(2, height, width, 2)).astype(np.float32)
        taken, back = through(images)
        np.testing.assert_array_equal(taken, padded(images, 8, 16))
        np.testing.assert_array_equal(back, images.repeat(factor, axis=1).repeat(factor, axis=2))


def sizes_of(task, data):
    networks = task.networks(data.example_spec)
    translation = Translation(task=task, data=describe(data), networks=networks)
    return find_sizes(translation, data.example_spec)


class TwoLayers(Supervised):
    """Any size passes its check, but an odd one becomes another: a stride of 2, then twice the size."""

    fixed = False

    def build_generator(self, example):
        image = keras.Input((64, 64, 3)) if self.fixed else image_input(3)
        x = Conv(2, 4, stride=2, padding=1, name="first")(image)
        return keras.Model(image, Conv(3, 3, padding=1, name="last")(keras.layers.UpSampling2D()(x)))


class OneSize(TwoLayers):
    """Only 64x64."""

    fixed = True


@pytest.mark.parametrize(
    "task, multiple, smallest",
    [
        (Supervised(generator="unet_64", generator_filters=1), 64, 64),
        (Supervised(generator="resnet_6blocks", generator_filters=1), 4, 8),
        (Supervised(generator="edsr_8blocks", generator_filters=1), 1, 1),
        (TwoLayers(), 2, 2),
        (OneSize(), None, 64),
    ],
)
def test_what_networks_take_is_found(task, multiple, smallest):
    sizes = sizes_of(task, MadeUpData())
    assert (sizes.multiple, sizes.smallest) == (multiple, smallest)
    assert sizes.trained == (64, 64) and sizes.factor == 1
