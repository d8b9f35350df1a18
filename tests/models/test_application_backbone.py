"""Trainable copies of Keras applications against the applications themselves."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.replica_context import set_example_weights
from models.application_backbone import application_backbone, load_application_weights
from models.networks import keras_application
from models.networks.application_input import input_format
from models.networks.efficientnet_v2_xl import PARAMETERS, STAGES, efficientnet_v2_xl
from models.networks.keras_application import application_module, build_application
from models.networks.norms import GlobalBatchNormalization

APPLICATIONS = ("MobileNetV3Small", "ConvNeXtTiny", "EfficientNetV2B0", "VGG16")


def original(application, **arguments):
    return build_application(application, weights=None, owner="test", **arguments)


def rgb(images):
    """Images in [-1, 1] -> [0, 255]."""
    return (images + 1) * 127.5


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Application -> (path of its weights, its activations for images, by Keras's own preprocessing)."""
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def of(application, images):
        if application not in made:
            keras.utils.set_random_seed(3)
            network = original(application)
            draw = np.random.default_rng(1)
            for layer in network.layers:  # moments and scales that no layer has at first
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.set_weights([x + draw.uniform(0, 0.5, x.shape) for x in layer.get_weights()])
            path = str(folder / f"{application}.weights.h5")
            network.save_weights(path)
            preprocess = application_module(application, setting="x").preprocess_input
            made[application] = path, network(preprocess(tf.constant(rgb(images))), training=False).numpy()
        return made[application]

    return of


@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_copy_with_stored_weights_gives_the_activations_of_the_application(application, stored, images):
    path, expected = stored(application, images)
    backbone = application_backbone(application, channels=3, input_channels="mean", owner="test")
    load_application_weights(backbone, application, weights=path, input_channels="mean", owner="test")
    found = backbone(images, training=False).numpy()
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()
    for layer in backbone.get_layer("application")._flatten_layers():
        assert type(layer) is not keras.layers.BatchNormalization


@pytest.mark.parametrize("application", ["EfficientNetV2B0", "VGG16"])  # standardised; blue, green, red
def test_repeated_channels_give_the_features_of_the_first_ones(application, stored, images, capsys):
    path, expected = stored(application, images)
    backbone = application_backbone(application, channels=6, input_channels="repeat", owner="test")
    load_application_weights(backbone, application, weights=path, input_channels="repeat", owner="test")
    found = backbone(np.concatenate([images, images], axis=-1), training=False).numpy()
    assert np.abs(found - expected).max() <= 5e-5 * np.abs(expected).max()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(", channels repeated") and "3, 6, " in line.replace("[", "")


def test_the_mean_of_the_channels_is_close_to_a_grey_picture(stored, images):
    path, _ = stored("VGG16", images)
    grey = images.mean(axis=-1, keepdims=True)
    networks = {}
    for channels in (1, 3):
        backbone = application_backbone("VGG16", channels=channels, input_channels="mean", owner="test")
        load_application_weights(backbone, "VGG16", weights=path, input_channels="mean", owner="test")
        networks[channels] = backbone.get_layer("application")
    # Without the means of the three colours, which one channel cannot have.
    x = rgb(grey)
    found, expected = networks[1](x).numpy(), networks[3](np.repeat(x, 3, axis=-1)).numpy()
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("application", "scale", "offset", "reverses"),
    [
        ("VGG16", [127.5] * 3, [127.5 - 123.68, 127.5 - 116.779, 127.5 - 103.939], True),
        ("MobileNetV2", [1] * 3, [0] * 3, False),
        (
            "DenseNet121",
            [0.5 / 0.229, 0.5 / 0.224, 0.5 / 0.225],
            [0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225],
            False,
        ),
        ("EfficientNetV2S", [127.5 / 128] * 3, [127.5 / 128 - 1] * 3, False),
    ],
)
def test_formats_of_the_images(application, scale, offset, reverses):
    found = input_format(application)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(found.offset, offset, atol=2e-5)
    assert found.reverses == reverses


def test_efficientnet_b0_standardises_as_its_imagenet_weights_do(images):
    """Keras keeps the mean and the root of the variance in its file, and divides by that root twice."""
    network = original("EfficientNetB0")
    normalization = next(x for x in network.layers if isinstance(x, keras.layers.Normalization))
    mean, stddev = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalization.set_weights([mean, stddev, np.array(1)])
    normalization.finalize_state()
    scaled = normalization(rgb(images) / 255) / np.sqrt(stddev)
    found = input_format("EfficientNetB0")
    np.testing.assert_allclose(images * found.scale + found.offset, scaled, atol=1e-5)


def test_names_do_not_depend_on_what_was_built_before():
    def paths():
        return [
            w.path
            for w in application_backbone("Xception", channels=3, input_channels="mean", owner="x").weights
        ]

    first = paths()
    keras.layers.Conv2D(1, 1)
    assert paths() == first and "conv2d_0/kernel" in first and "batch_normalization_0/gamma" in first


def test_weights_that_are_not_there_are_named():
    backbone = application_backbone("MobileNetV2", channels=3, input_channels="mean", owner="LabelNetwork")
    with pytest.raises(ConfigurationError, match=r"LabelNetwork.weights = 'no/file': there is no such file"):
        load_application_weights(
            backbone, "MobileNetV2", weights="no/file", input_channels="mean", owner="LabelNetwork"
        )
    with pytest.raises(ConfigurationError, match="Keras publishes none of EfficientNetV2XL"):
        build_application("EfficientNetV2XL", weights="imagenet", owner="LabelNetwork")


def xl_parameters(stages):
    """Trainable parameters of an EfficientNetV2 without the top, from its configuration."""
    total = 9 * 3 * 32 + 2 * 32
    for stage in stages:
        for repeat in range(stage.repeats):
            channels = stage.outputs if repeat else stage.inputs
            inner, outputs = channels * stage.expansion, stage.outputs
            if stage.is_fused and stage.expansion == 1:
                total += 9 * channels * outputs + 2 * outputs
            elif stage.is_fused:
                total += 9 * channels * inner + 2 * inner + inner * outputs + 2 * outputs
            else:
                units = int(channels * stage.squeeze)
                total += channels * inner + 2 * inner + 9 * inner + 2 * inner
                total += inner * units + units + units * inner + inner + inner * outputs + 2 * outputs
    return total + stages[-1].outputs * 1280 + 2 * 1280


def test_efficientnet_v2_xl_has_its_published_size():
    # Tan and Le, arXiv 2104.00298: 208 M with the top of 1000 classes. All stages are built in a benchmark.
    assert xl_parameters(STAGES) == PARAMETERS and round((PARAMETERS + 1281 * 1000) / 1e6) == 208
    shortened = [stage._replace(repeats=2) for stage in STAGES[1:4]]
    shortened[0] = shortened[0]._replace(inputs=32)
    network = efficientnet_v2_xl(stages=shortened, weights=None, include_top=False)
    assert sum(int(np.prod(w.shape)) for w in network.trainable_weights) == xl_parameters(shortened)


def test_stages_may_have_more_blocks_than_letters(monkeypatch):
    stage = STAGES[0]._replace(repeats=28, outputs=8)
    builder = functools.partial(efficientnet_v2_xl, stages=[stage])
    monkeypatch.setattr(keras_application, "efficientnet_v2_xl", builder)
    backbone = application_backbone("EfficientNetV2XL", channels=3, input_channels="mean", owner="test")
    blocks = {
        path.split("_")[0] for path in (w.path.split("/")[-2] for w in backbone.weights) if "block" in path
    }
    assert {"block1a", "block1z", "block1aa", "block1ab"} <= blocks and len(blocks) == 28
    tf.function(backbone).get_concrete_function(tf.TensorSpec([1, 32, 32, 3]))


@pytest.mark.parametrize("scale", [True, False])
def test_batch_norm_is_keras_s_on_one_replica(scale):
    keras.config.set_dtype_policy("float64")
    draw = np.random.default_rng(2)
    x, upstream = draw.normal(3, 2, (5, 4, 4, 3)), draw.normal(size=(5, 4, 4, 3))
    found = []
    for kind in (keras.layers.BatchNormalization, GlobalBatchNormalization):
        layer = kind(momentum=0.7, epsilon=0.01, scale=scale)
        layer.build(x.shape)
        layer.set_weights([w + 0.3 for w in layer.get_weights()])
        with tf.GradientTape() as tape:
            tape.watch(inputs := tf.constant(x))
            total = tf.reduce_sum(layer(inputs, training=True) * upstream)
        gradients = tape.gradient(total, [inputs, *[w.value for w in layer.trainable_weights]])
        found.append([*gradients, *layer.get_weights(), layer(x, training=False)])
    for ours, keras_s in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_s, rtol=1e-10, atol=1e-12)


def test_batch_norm_leaves_padding_rows_out():
    x = tf.constant(np.random.default_rng(3).normal(size=(3, 2, 2, 4)), tf.float32)
    layers = [GlobalBatchNormalization(momentum=0.5) for _ in range(2)]
    with set_example_weights(tf.constant([1.0, 1.0, 0.0])):
        found = layers[0](x, training=True)[:2]
    np.testing.assert_allclose(found, layers[1](x[:2], training=True), atol=1e-6)
    for one, other in zip(layers[0].get_weights(), layers[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
