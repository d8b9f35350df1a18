"""Pictures of any size through networks: in tiles as whole, tiny ones, in batches, on several replicas."""

from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.devices import devices_of
from engine.errors import ConfigurationError
from engine.inference.batch_function import BatchFunction
from engine.inference.translator import Translator
from engine.pictures.picture_input import Picture
from engine.pictures.role_format import RoleFormat
from engine.tiling.seams import seam_ratio
from engine.translation.limits import Limits
from engine.translation.network_runner import NetworkInput, NetworkRunner
from engine.translation.tiled_runner import TiledRunner
from models.networks.edsr import edsr
from models.networks.generators import build_generator, check_image_size


def translator_of(model, *, name=None, factor=1, devices=None):
    """A network that needs no side information."""

    def check(height, width):
        if name is not None:
            check_image_size(name, height, width)

    compiled = BatchFunction(lambda pictures, *_: model(pictures, training=False), devices=devices)
    return Translator(
        description="a test",
        input=RoleFormat(channels=3),
        output=RoleFormat(channels=3),
        check_size=check,
        translate=compiled,
        compiled=compiled,
        factor=Fraction(factor),
    )


def runners(translator, **limits):
    runner = NetworkRunner(translator, Limits(**limits))
    return runner, TiledRunner(runner)


def smooth_picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).random((height // 8 + 2, width // 8 + 2, 3))
    pixels = tf.image.resize(coarse, (height, width), "bicubic").numpy()
    return NetworkInput(picture=Picture(pixels=np.uint8(np.clip(255 * pixels, 0, 255)), value_range=(0, 255)))


def generator(name, *, norm, inference_norm="moving_statistics", seed=0, **settings):
    """A generator whose outputs depend on distant pixels: initially, the reference's hardly do."""
    keras.utils.set_random_seed(seed)
    model = build_generator(
        name,
        name="g",
        input_channels=3,
        output_channels=3,
        filters=4,
        norm=norm,
        dropout=False,
        inference_norm=inference_norm,
        **settings,
    )
    for weight in model.weights:
        if weight.name == "kernel":
            transposed = "up_" in weight.path and "conv" in weight.path
            fan_in = (
                np.prod(weight.shape[:2]) * weight.shape[3 if transposed else 2] / (4 if transposed else 1)
            )
            weight.assign(np.random.default_rng(seed).normal(0, (1.5 / fan_in) ** 0.5, weight.shape))
        elif weight.name == "moving_variance":
            weight.assign(tf.fill(weight.shape, 0.7))
        seed += 1
    return model


def in_tiles(tiled, one, *, code=None):
    plan = tiled.plan(*one.size)
    assert plan is not None and plan.tiles > 1
    return np.concatenate(list(tiled.bands(one, plan, code))), plan


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_resnet_computes_the_same_in_tiles_as_whole(norm):
    """Moving or no statistics; the overlap is the receptive radius, which is found by itself."""
    model = generator("resnet_6blocks", norm=norm)
    runner, tiled = runners(translator_of(model, name="resnet_6blocks"), tile=176)
    for size in ((301, 259), (180, 177), (100, 400)):
        one = smooth_picture(*size)
        [whole] = runner.run([one], None)
        output, _ = in_tiles(tiled, one)
        assert output.shape == whole.shape == (*size, 3)
        assert whole.std() > 0.05
        np.testing.assert_allclose(output, whole, rtol=0, atol=1 / 2550)  # a tenth of 1 / 255
    # By the layers: 3 + 1 + 2 + 12 * 4 + 4 + 2 + 3 = 63, and up to 4 for positions within the stride.
    assert 56 <= tiled.radius <= 68
    assert (
        f"overlap of {tiled.radius} (the network needs {tiled.radius}, so the result is" in tiled.description
    )


def test_an_overlap_that_is_too_small_leaves_a_difference():
    """So the comparison above can fail."""
    model = generator("resnet_6blocks", norm="none")
    runner, tiled = runners(translator_of(model, name="resnet_6blocks"), tile=64, overlap=8)
    one = smooth_picture(130, 130)
    output, _ = in_tiles(tiled, one)
    assert np.abs(output - runner.run([one], None)[0]).max() > 2 / 255
    assert "overlap of 8 (the network needs 6" in tiled.description
    assert "of 255 levels where they are blended" in tiled.description


@pytest.mark.parametrize(
    "name, norm, inference_norm",
    [
        ("resnet_6blocks", "instance", "moving_statistics"),
        ("resnet_6blocks", "batch", "batch_statistics"),
        ("unet_32", "batch", "moving_statistics"),
    ],
)
def test_where_every_output_depends_on_the_whole_picture_seams_are_blended(name, norm, inference_norm):
    model = generator(name, norm=norm, inference_norm=inference_norm)
    _, tiled = runners(translator_of(model, name=name), tile=96, overlap=24)
    output, plan = in_tiles(tiled, smooth_picture(250, 190))
    assert output.shape == (250, 190, 3)
    assert tiled.radius is None or tiled.radius > 24
    assert tiled.disagreement.mean > 1e-3
    assert seam_ratio(output, rows=plan.row_borders, columns=plan.column_borders) < 1.3


@pytest.mark.parametrize("size", [(65, 64), (97, 50), (1, 300)])
def test_super_resolution_in_tiles(size):
    keras.utils.set_random_seed(0)
    model = edsr(name="g", input_channels=3, output_channels=3, blocks=2, factor=4, filters=4)
    [last] = [weight for weight in model.get_layer("last_conv").weights if weight.name == "kernel"]
    last.assign(np.random.default_rng(0).normal(0, 0.1, last.shape))
    runner, tiled = runners(translator_of(model, factor=4), tile=48)
    one = smooth_picture(*size)
    [whole] = runner.run([one], None)
    output, _ = in_tiles(tiled, one)
    assert output.shape == whole.shape == (4 * size[0], 4 * size[1], 3)
    np.testing.assert_allclose(output, whole, rtol=0, atol=1e-4)
    # By the 3x3 convolutions 1 + 4 + 1 + 1 + 1/2 + 1/4; the last of it changes outputs very little.
    assert 6 <= tiled.radius <= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (64, 64), (63, 10)])
def test_tiny_pictures_are_translated_whole(size):
    model = generator("resnet_6blocks", norm="none")
    runner, tiled = runners(translator_of(model, name="resnet_6blocks"), tile=64)
    one = smooth_picture(*size)
    assert tiled.plan(*size) is None
    [output] = runner.run([one], None)
    multiple = 4 if min(size) > 4 else 8  # the network takes no side of 4
    height, width = (-(-length // multiple) * multiple for length in size)
    pixels = one.picture.pixels
    for axis, length in enumerate((height, width)):
        missing = length - size[axis]
        widths = [(0, missing if n == axis else 0) for n in range(3)]
        pixels = np.pad(pixels, widths, mode="reflect" if missing < size[axis] else "edge")
    expected = model(pixels[np.newaxis] / np.float32(127.5) - 1, training=False)[0, : size[0], : size[1]]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


def test_the_memory_decides_which_pictures_are_cut():
    model = generator("resnet_6blocks", norm="none")
    translator = translator_of(model, name="resnet_6blocks")
    runner, tiled = runners(translator, memory_gib=0.02)
    at_once = runner.pixels_at_once(128, 128)
    side = int(at_once**0.5) // 4 * 4
    assert 300 < side < 1000  # 4 filters: 64 bytes per pixel of the first layer and its copies
    assert tiled.plan(side, side) is None
    plan = tiled.plan(side + 4, side + 4)
    assert plan is not None and plan.height == plan.width == side
    assert runner.batch(128, 128) == min(8, int(at_once / 128**2)) and runner.batch(2 * side, side) == 1
    assert runners(translator, memory_gib=0.02, tile=0)[1].plan(5000, 5000) is None
    double, _ = runners(translator, memory_gib=0.04)
    assert double.pixels_at_once(128, 128) == pytest.approx(2 * at_once)


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_share_a_batch(replicas):
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{n}" for n in range(replicas)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = generator("unet_32", norm="batch", inference_norm="batch_statistics")
    translator = translator_of(model, name="unet_32", devices=devices_of(strategy))
    assert translator.compiled.replicas == replicas
    runner, tiled = runners(translator, batch=2, tile=96)
    assert runner.batch(32, 32) == 2 * replicas
    for count in (1, 2, 4, 5):
        pictures = [smooth_picture(32, 64, seed=number) for number in range(count)]
        outputs = runner.run(pictures, None)
        assert len(outputs) == count
        for one, output in zip(pictures, outputs, strict=True):
            expected = model(one.picture.pixels[np.newaxis] / np.float32(127.5) - 1, training=False)[0]
            np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)
    alone = TiledRunner(NetworkRunner(translator_of(model, name="unet_32"), Limits(tile=96)))
    one = smooth_picture(200, 300)
    np.testing.assert_allclose(in_tiles(tiled, one)[0], in_tiles(alone, one)[0], rtol=0, atol=1e-4)


def test_a_network_that_only_fails_when_it_is_tried_gets_padded_pictures():
    image = keras.Input((None, None, 3))
    half = keras.layers.Conv2D(3, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Add()([image, keras.layers.UpSampling2D()(half)]))
    translator = translator_of(model)

    def translate(pictures, *others):
        try:
            return translator.compiled(pictures, *others)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ConfigurationError("does not take that") from error

    tried = Translator(**{**vars(translator), "translate": translate})
    runner, _ = runners(tried)
    for size in ((8, 8), (9, 7), (5, 6)):
        [output] = runner.run([smooth_picture(*size)], None)
        assert output.shape == (*size, 3)


def test_a_network_whose_outputs_have_other_sizes_gets_padded_pictures():
    image = keras.Input((None, None, 3))
    half = keras.layers.Conv2D(3, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same")(half))
    runner, _ = runners(translator_of(model))
    [output] = runner.run([smooth_picture(9, 7)], None)
    assert output.shape == (9, 7, 3)
    never = keras.Model(image, keras.layers.Conv2D(3, 3)(image))
    runner, _ = runners(translator_of(never))
    with pytest.raises(ConfigurationError, match="the network makes 7x5 of 9x7 pixels"):
        runner.run([smooth_picture(9, 7)], None)
