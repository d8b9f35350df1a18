"""The networks: sizes, names, dtypes, and which errors they raise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.networks.edsr import edsr
from models.networks.generators import GENERATORS, build_generator, check_image_size
from models.networks.patchgan import patchgan


def generator(network, *, norm="instance", dropout=False, filters=2, **kwargs):
    return build_generator(
        network,
        name="G",
        input_channels=3,
        output_channels=3,
        filters=filters,
        norm=norm,
        dropout=dropout,
        **kwargs,
    )


def trainable_parameters(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    "network, norm, count",
    [
        ("resnet_9blocks", "instance", 11_378_179),
        ("resnet_6blocks", "instance", 7_837_699),
        ("resnet_9blocks", "batch", 11_383_427),
        ("unet_256", "batch", 54_413_955),
        ("unet_128", "batch", 41_828_995),
        ("unet_256", "instance", 54_409_603),
    ],
)
def test_generator_parameters(network, norm, count):
    assert trainable_parameters(generator(network, norm=norm, filters=64)) == count


@pytest.mark.parametrize("factor, count", [(2, 1_369_859), (4, 1_517_571)])
def test_enlarging_generator_has_the_parameters_of_the_edsr_baseline(factor, count):
    network = edsr(name="G", input_channels=3, output_channels=3, blocks=16, factor=factor)
    assert trainable_parameters(network) == count  # of the authors' 16 blocks of 64 filters
    assert network.output.shape[-1] == 3


@pytest.mark.parametrize("factor", [1, 8])
def test_enlarging_generator_begins_as_the_bicubic_image(factor):
    network = edsr(name="G", input_channels=1, output_channels=1, blocks=1, factor=factor, filters=2)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 5, 7, 1)).astype(np.float32)
    size = (factor * 7, factor * 5)
    expected = Image.fromarray(x[0, ..., 0], mode="F").resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_allclose(network(x)[0, ..., 0], expected, rtol=0, atol=1e-5)
    other = edsr(name="G", input_channels=1, output_channels=3, blocks=1, factor=factor, filters=2)
    assert other(x).shape == (1, 5 * factor, 7 * factor, 3) and np.all(np.std(other(x), axis=(1, 2)) > 0)


def test_discriminator_parameters():
    patch = patchgan(name="D", input_channels=3, norm="instance")
    assert trainable_parameters(patch) == 2_764_737
    assert trainable_parameters(patchgan(name="D", input_channels=6)) == 2_768_705


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("network", ["unet_64", "resnet_6blocks", "edsr_8blocks"])
def test_generators_keep_the_size(network, norm):
    model = generator(network, norm=norm, dropout=True)
    y = model(np.zeros((2, 64, 128, 3), np.float32), training=True)
    assert y.shape == (2, 64, 128, 3)
    paths = [variable.path for variable in model.variables]
    assert len(set(paths)) == len(paths)
    biased = [path for path in paths if path.endswith("/bias")]
    convolutions = [path for path in paths if path.endswith("/kernel")]
    always = 3 if network.startswith("edsr") else 1  # convolutions that no norm follows
    assert len(biased) == (always if norm == "batch" else len(convolutions))


def test_dropout_is_where_the_reference_has_it():
    def dropouts(network):
        layers = generator(network, dropout=True).layers
        return [layer.name for layer in layers if isinstance(layer, keras.layers.Dropout)]

    assert dropouts("unet_256") == ["up_7_dropout", "up_6_dropout", "up_5_dropout"]
    assert dropouts("unet_128") == ["up_6_dropout", "up_5_dropout"]
    assert dropouts("resnet_6blocks") == [f"block_{block}_dropout" for block in range(1, 7)]


def test_patchgan_logits():
    model = patchgan(name="D", input_channels=6, filters=2)
    assert model(np.zeros((1, 256, 256, 6), np.float32)).shape == (1, 30, 30, 1)
    assert model(np.zeros((1, 99, 24, 6), np.float32)).shape == (1, 10, 1, 1)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_images_and_logits_have_the_dtype_of_the_variables(policy):
    keras.config.set_dtype_policy(policy)
    try:
        models = [generator("unet_64", norm="batch"), generator("resnet_6blocks")]
        models += [generator("edsr_8blocks", norm="none")]
        models += [patchgan(name="D", input_channels=3, filters=2)]
    finally:
        keras.config.set_dtype_policy("float32")
    for model in models:
        y = model(np.zeros((1, 64, 64, 3), np.float32), training=True)
        assert y.dtype == (tf.float64 if policy == "float64" else tf.float32)
        assert {variable.dtype for variable in model.trainable_variables} == {y.dtype.name}


def test_a_saved_model_is_the_same(tmp_path):
    enlarging = edsr(name="G", input_channels=3, output_channels=3, blocks=1, factor=2, filters=2)
    for model in (
        generator("unet_64", norm="batch", inference_norm="moving_statistics"),
        generator("resnet_6blocks", norm="batch", inference_norm="moving_statistics"),
        enlarging,
    ):
        x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
        model(x, training=True)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))


def test_image_sizes():
    check_image_size("unet_256", 256, 512)
    check_image_size("unet_64", 64, 192)
    check_image_size("resnet_9blocks", 8, 100)
    message = "unet_256: does not take images of 300x256 .* multiples of 256.* to 256x256"
    for network, size, expected in (
        ("unet_256", (300, 256), message),
        ("unet_256", (0, 256), "unet_256"),
        ("resnet_6blocks", (102, 100), "multiples of 4.*to 104x100|multiples of 4.*to 100x100"),
        ("resnet_6blocks", (4, 8), "to 8x8"),
    ):
        with pytest.raises(ValueError, match=expected) as error:
            check_image_size(network, *size)
        assert "\n" not in str(error.value)


def test_unknown_names_raise_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match="'unet_512': unknown; use one of " + ", ".join(GENERATORS)):
        generator("unet_512")
    with pytest.raises(ValueError, match="unet_512"):
        check_image_size("unet_512", 512, 512)
    with pytest.raises(ValueError, match="'layer': unknown; use one of batch, instance, none"):
        generator("unet_64", norm="layer")
    with pytest.raises(ValueError, match="batch_statistics, moving_statistics"):
        generator("resnet_6blocks", inference_norm="batch")
