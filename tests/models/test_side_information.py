"""Side information: what FiLM and concatenation compute, and that pix2pix learns with it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError
from engine.storage import checkpoints
from engine.task import Adam
from models.networks.conditioning import FeatureModulation, SideInputs, SideShapes
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise
from models.networks.patchgan import patchgan
from models.networks.resnet import resnet
from models.networks.unet import unet
from models.pix2pix import Pix2Pix
from models.pytorch.weights import reference_arrays
from models.side_information import SideInformation
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.runs import variables
from tests.helpers.small_training import NoisePairs

FLOAT64 = {"total_examples": 1, "precision": "float64"}
NETWORKS = {
    "unet": lambda channels, **more: unet(
        name="G", input_channels=channels, output_channels=3, downsamplings=5, filters=2, **more
    ),
    "resnet": lambda channels, **more: resnet(
        name="G", input_channels=channels, output_channels=3, blocks=1, filters=2, **more
    ),
    "patchgan": lambda channels, **more: patchgan(name="D", input_channels=channels, filters=2, **more),
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def randomise(model, *, but=()):
    for number, weight in enumerate(model.weights):
        if not any(part in weight.path for part in but):
            weight.assign(noise(*weight.shape, seed=number) * 0.3)


def test_film_scales_and_shifts_as_numpy_does():
    set_precision("float64")
    layer = FeatureModulation()
    x, hidden = noise(2, 3, 4, 5), noise(2, 7, seed=1)
    np.testing.assert_array_equal(layer([x, hidden]), x)  # initially it changes nothing
    layer.set_weights([noise(7, 10, seed=2), noise(10, seed=3)])
    made = np.einsum("bu,uc->bc", hidden, noise(7, 10, seed=2)) + noise(10, seed=3)
    expected = np.empty_like(x)
    for b in range(2):
        for c in range(5):
            expected[b, :, :, c] = (1 + made[b, c]) * x[b, :, :, c] + made[b, 5 + c]
    np.testing.assert_allclose(layer([x, hidden]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_film_starts_as_the_one_without(name):
    set_precision("float64")
    plain = NETWORKS[name](3, norm="batch")
    modulated = NETWORKS[name](3, norm="batch", side=SideShapes(modulating=2, film_units=8))
    randomise(modulated, but=["_film/"])
    by_path = {weight.path: weight for weight in modulated.weights}
    for weight in plain.weights:
        weight.assign(by_path.pop(weight.path))
    norms = [layer for layer in modulated.layers if layer.name.endswith("_film")]
    assert len(norms) == sum("norm" in layer.name and "film" not in layer.name for layer in modulated.layers)
    assert len(by_path) == 2 * len(norms) + 2  # and the hidden layer
    x, vector = noise(2, 32, 32, 3), noise(2, 2)
    np.testing.assert_array_equal(modulated([x, vector], training=True), plain(x, training=True))
    randomise(modulated)
    other = [modulated([x, v], training=True).numpy() for v in (vector, vector[[1, 0]])]
    assert np.abs(other[0] - other[1]).max() > 1e-3
    with pytest.raises(ConfigurationError, match="the reference has no such network"):
        reference_arrays(modulated)


@pytest.mark.parametrize("name", NETWORKS)
def test_concatenation_is_that_of_the_channels(name):
    set_precision("float64")
    side = SideShapes(tiled=2, map_channels=1)
    beside, plain = NETWORKS[name](3, norm="none", side=side), NETWORKS[name](6, norm="none")
    randomise(beside)
    plain.set_weights(beside.get_weights())
    x, vector, maps = noise(2, 32, 32, 3), noise(2, 2, seed=1), noise(2, 32, 32, 1, seed=2)
    tiled = np.broadcast_to(vector[:, None, None], (2, 32, 32, 2))
    expected = plain(np.concatenate([x, tiled, maps], axis=-1), training=False)
    assert [tensor.name for tensor in beside.inputs] == ["image", "side_vector", "side_map"]
    np.testing.assert_allclose(beside([x, vector, maps], training=False), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_resnet_whose_norm_would_take_the_vector_out_is_refused(norm):
    set_precision("float64")
    plain = NETWORKS["resnet"](5, norm=norm)
    randomise(plain, but=["gamma", "moving"])
    x = noise(1, 16, 16, 3)
    blind = [
        plain(np.concatenate([x, np.full((1, 16, 16, 2), value)], axis=-1), training=True)
        for value in (-1.0, 1.0)
    ]
    np.testing.assert_allclose(*blind, rtol=0, atol=1e-9)  # why
    with pytest.raises(ConfigurationError, match=f"the {norm} norm .* to 'film', or choose a U-Net"):
        NETWORKS["resnet"](3, norm=norm, side=SideShapes(tiled=2))
    assert NETWORKS["resnet"](3, norm=norm, side=SideShapes(map_channels=1))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigurationError, match="vector = 'FiLM': unknown; use one of none, concatenate"):
        SideInformation(vector="FiLM")
    with pytest.raises(ConfigurationError, match="map = 'film': unknown"):
        SideInformation(map="film")
    with pytest.raises(ConfigurationError, match="film_units = 0"):
        SideInformation(film_units=0)
    example = NoisePairs().example_spec
    with pytest.raises(ConfigurationError, match="no 'side_vector'; prepare it with --side_vector or --side"):
        Pix2Pix(generator="unet_64", side_information=SideInformation(vector="film")).networks(example)
    with pytest.raises(ConfigurationError, match="no 'side_map'; prepare it with --side_map, or set 'none'"):
        Pix2Pix(generator="unet_64", side_information=SideInformation(map="concatenate")).networks(example)
    task = Pix2Pix(generator="resnet_6blocks", side_information=SideInformation(vector="concatenate"))
    with pytest.raises(ConfigurationError, match="removes the contribution"):
        task.networks(example | {"side_vector": tf.TensorSpec([2], tf.float32)})


def test_both_networks_of_pix2pix_get_the_side_information():
    example = NoisePairs(size=64).example_spec | {
        "side_vector": tf.TensorSpec([4], tf.float32),
        "side_map": tf.TensorSpec([64, 64, 2], tf.float32),
    }

    def inputs(**settings):
        task = Pix2Pix(
            generator="unet_64",
            generator_filters=2,
            discriminator_filters=2,
            side_information=SideInformation(**settings),
        )
        networks = task.networks(example).values()
        return task.side_inputs, [[tuple(x.shape[1:]) for x in network.inputs] for network in networks]

    image, pair, maps = (None, None, 3), (None, None, 6), (None, None, 2)
    assert inputs() == ((), [[image], [pair]])
    assert inputs(map="concatenate") == (("side_map",), [[image, maps], [pair, maps]])
    both = [[image, (4,), maps], [pair, (4,), maps]]
    assert inputs(vector="film", map="concatenate") == (("side_vector", "side_map"), both)


def test_maps_stay_in_their_places_where_images_are_moved():
    batch = {"side_vector": "vector", "side_map": "map", "input": "image"}
    both = SideInformation(vector="film", map="concatenate")
    assert both.network_inputs("moved", batch, change="moved {}".format) == ["moved", "vector", "moved map"]
    assert SideInformation(map="concatenate").network_inputs("pair", batch) == ["pair", "map"]
    assert SideInformation().network_inputs("pair", batch, change="moved {}".format) == "pair"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColouredByClass(NoisePairs):
    """Grey noise whose class determines the target's colour; the map is half of the input."""

    @property
    def example_spec(self):
        more = {"side_vector": [2], "side_map": [self.size, self.size, 1]}
        return super().example_spec | {name: tf.TensorSpec(s, tf.float32) for name, s in more.items()}

    def example(self, index):
        example = super().example(index)
        grey = tf.reduce_mean(example["input"], axis=-1, keepdims=True)
        one_hot = tf.one_hot(tf.cast(index % 2, tf.int32), 2)
        colour = tf.tensordot(one_hot, tf.constant([[0.8, 0.0, -0.8], [-0.8, 0.0, 0.8]]), 1)
        beside = {"side_vector": one_hot, "side_map": grey / 2}
        return example | beside | {"input": tf.repeat(grey, 3, axis=-1), "target": colour + 0.2 * grey}


class SmallSidePix2Pix(Pix2Pix):
    """Networks of two layers, which compile in a second."""

    def networks(self, example):
        def network(name, channels_in, made, activation, stride):
            image, inputs = image_input(channels_in), SideInputs(self.side_information.shapes(example))
            # Gradients of a bias before a norm are rounding errors, which Adam would amplify.
            conv = Conv(4, 4, stride=2, padding=1, use_bias=False, name="conv")
            x = conv(inputs.concatenated(image))
            x = inputs.modulated(normalise(x, self.norm, name="norm"), "norm")
            x = keras.layers.LeakyReLU(0.2, name="leaky")(x)
            if stride == 1:
                x = keras.layers.UpSampling2D(name="up")(x)
            x = Conv(made, 3, stride=stride, padding=1, name="out")(x)
            x = keras.layers.Activation(activation, dtype=variable_dtype(), name="activation")(x)
            return keras.Model(inputs.with_image(image), x, name=name)

        return {
            "generator": network("generator", 3, 3, "tanh", 1),
            "discriminator": network("discriminator", 6, 1, "linear", 2),
        }


FAST = Adam(learning_rate=2e-2)


def small(**side):
    return SmallSidePix2Pix(
        norm="instance",
        dropout=False,
        side_information=SideInformation(**{"film_units": 4} | side),
        generator_optimizer=FAST,
        discriminator_optimizer=FAST,
    )


@pytest.mark.parametrize("settings", [{"vector": "film", "map": "concatenate"}, {"vector": "none"}])
def test_only_a_network_that_gets_the_class_learns_its_colour(make_trainer, tmp_path, settings):
    data = ColouredByClass(size=16, train_examples=10_000)  # too many to memorise
    trainer = make_trainer(small(**settings), data, **FLOAT64)
    losses, _ = train(trainer, plans_of(4, None, 1, 60))
    names = [name for name in trainer.loop._metric_names[0] if name.startswith("loss/")]
    l1 = losses[:, names.index("loss/generator/l1")] / 100
    # Without the class the best guess is grey: 0.8 off in two of three channels.
    if settings["vector"] == "none":
        assert l1[-10:].min() > 0.5
        return
    assert l1[0] > 0.4 and l1[-10:].max() < 0.2
    networks, task = trainer.state.networks, trainer.experiment.task
    [first, *_] = data.evaluation("val", batch=2)
    for classes in ([0, 1], [1, 0]):  # only the class decides
        batch = {name: tf.cast(x, tf.float64) for name, x in first.items()}
        batch["side_vector"] = tf.constant(np.eye(2)[classes])
        colours = task.translate(networks, batch).numpy().mean(axis=(1, 2))
        assert np.all(np.sign(colours[:, 0]) == [1 - 2 * c for c in classes])
    whole = train(trainer, plans_of(5, None, 1, 4))
    checkpoints.write(checkpoints.take_snapshot(trainer.state), str(tmp_path / "saved"), keep=1)
    replicas = make_trainer(task, data, cpu_replicas=2, **FLOAT64)
    assert_same(train(replicas, plans_of(5, None, 2, 4)), whole)
    assert checkpoints.restore_latest(replicas.state, str(tmp_path / "saved")) == 0
    for name, value in whole[1].items():  # checkpoints hold all of FiLM
        np.testing.assert_array_equal(variables(replicas)[name], value, err_msg=name)
    film = [w for network in networks.values() for w in network.weights if "film" in w.path]
    assert len(film) == 8 and all(np.abs(weight.numpy()).max() > 1e-3 for weight in film)
