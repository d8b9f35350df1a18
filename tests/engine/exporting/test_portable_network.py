"""Networks of Keras's own layers compute what the project's layers compute; folding changes only rounding."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.exporting.batch_norm_folding import foldable_norms, folded_weights
from engine.exporting.portable_network import portable_network
from models.networks.conditioning import SideShapes
from models.networks.dropout import Dropout
from models.networks.edsr import Enlarge, edsr
from models.networks.layers import Conv, ConvTranspose, image_input
from models.networks.norms import BatchNorm
from models.networks.resnet import resnet
from models.networks.unet import unet
from tests.engine.exporting.conftest import randomise

COMMON = {"name": "network", "input_channels": 3, "filters": 4}
UNET = COMMON | {"output_channels": 3, "downsamplings": 3}
MOVING = {"norm": "batch", "inference_norm": "moving_statistics"}
NETWORKS = {  # name -> network, number of batch norms that fold
    "unet": (lambda: unet(**UNET), 0),
    "unet, moving": (lambda: unet(**UNET, **MOVING), 3),
    "unet, code everywhere": (
        lambda: unet(**UNET, norm="instance", side=SideShapes(tiled=3, tiled_at="all")),
        0,
    ),
    "resnet": (lambda: resnet(**COMMON, output_channels=1, blocks=1), 0),
    "resnet, film and map": (
        lambda: resnet(
            **COMMON,
            **MOVING,
            output_channels=2,
            blocks=1,
            dropout=True,
            side=SideShapes(modulating=3, map_channels=2),
        ),
        7,
    ),
    "edsr": (lambda: edsr(**COMMON, **MOVING, output_channels=3, blocks=1, factor=4), 2),
}


def inputs_of(network):
    rng = np.random.default_rng(0)
    shapes = [(2, 16, 24, x.shape[-1]) if len(x.shape) == 4 else (2, x.shape[-1]) for x in network.inputs]
    given = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    return given if len(given) > 1 else given[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_keras_alone_computes_the_same(name):
    make, norms = NETWORKS[name]
    network = make()
    randomise(network)
    given = inputs_of(network)
    expected = network(given, training=False).numpy()
    for fold, tolerance in ((False, 1e-5), (True, 2e-5)):
        portable = portable_network(network, fold=fold)
        assert portable.foreign == () and portable.folded == (norms if fold else 0)
        used = {type(layer) for layer in portable.model.layers}
        assert all(kind.__module__.startswith("keras.") for kind in used)
        assert not used & {keras.layers.Dropout, *([keras.layers.BatchNormalization] if fold else [])}
        np.testing.assert_allclose(portable.model(given, training=False), expected, rtol=0, atol=tolerance)


def test_folding_in_float64_is_exact_to_rounding():
    set_precision("float64")
    rng = np.random.default_rng(0)
    for conv, portable in (
        (Conv(5, 3, padding=1, use_bias=True, name="conv"), keras.layers.Conv2D(5, 3, padding="same")),
        (
            ConvTranspose(5, 4, use_bias=False, name="conv"),
            keras.layers.Conv2DTranspose(5, 4, 2, padding="same"),
        ),
    ):
        image = image_input(3)
        norm = BatchNorm(inference_norm="moving_statistics", name="norm")
        network = keras.Model(image, norm(conv(image)))
        randomise(network)
        x = rng.normal(size=(2, 6, 8, 3))
        portable.build(x.shape)
        portable.set_weights(folded_weights(conv, norm))
        expected = network(x, training=False).numpy()
        assert expected.dtype == np.float64 and np.ptp(expected) > 1
        np.testing.assert_allclose(portable(x), expected, rtol=0, atol=1e-13)


def test_only_what_nothing_else_sees_is_folded():
    def network(middle, mode="moving_statistics", activation="linear"):
        image = image_input(3)
        conv = Conv(3, 3, padding=1, activation=activation, name="conv")
        x, more = middle(conv(image))
        x = BatchNorm(inference_norm=mode, name="norm")(x)
        return keras.Model(image, keras.layers.Add(name="sum")([x, more(image)]))

    def plain(x):
        return x, lambda image: image

    assert foldable_norms(network(plain)).keys() == {"conv"}
    assert not foldable_norms(network(plain, mode="batch_statistics"))
    assert not foldable_norms(network(plain, activation="relu"))
    assert not foldable_norms(network(lambda x: (x, lambda _: x)))  # a skip connection
    assert not foldable_norms(network(lambda x: (keras.layers.ReLU()(x), lambda image: image)))


def test_bicubic_upsampling_by_any_whole_factor():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 5, 7, 2)).astype(np.float32)
    for factor in (2, 3, 4, 5):
        image = image_input(2)
        network = keras.Model(image, Enlarge(factor, name="large")(image))
        np.testing.assert_allclose(
            portable_network(network).model(x), network(x), rtol=0, atol=2e-6, err_msg=str(factor)
        )


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.layers.Layer):
    """A layer of a user's own."""

    def call(self, x):
        return 2 * x


def test_layers_of_a_user_stay_and_are_named():
    image = image_input(3)
    x = Doubled(name="own")(Dropout(0.5, name="dropout")(Conv(3, 3, padding=1, name="conv")(image)))
    network = keras.Model(image, x)
    portable = portable_network(network)
    [foreign] = portable.foreign
    assert foreign == f"{__name__}.Doubled"
    x = tf.random.stateless_normal([1, 8, 8, 3], (0, 0))
    np.testing.assert_allclose(portable.model(x), network(x), rtol=0, atol=1e-6)


def test_float16_computes_in_float16_and_gives_float32():
    network = unet(**UNET)
    randomise(network)
    given = inputs_of(network)
    portable = portable_network(network, dtype="float16").model
    assert {layer.compute_dtype for layer in portable.layers if layer.name.endswith("_conv")} == {"float16"}
    assert {weight.dtype for weight in portable.weights} == {"float16"}
    found = portable(given, training=False)
    assert found.dtype == tf.float32
    errors = found.numpy() - network(given, training=False).numpy()
    assert 0 < np.abs(errors).max() < 0.05 and np.sqrt(np.mean(errors**2)) < 0.005
