"""Feature matching and the perceptual loss, on networks with random weights."""

import functools

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError
from models import losses
from models.networks.patchgan import ACTIVATIONS, patchgan


def images(seed, shape=(2, 32, 32, 3)):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_feature_matching():
    layers = [np.random.default_rng(k).normal(size=(2, 8 // k, 8 // k, 3 * k)) for k in (1, 2, 4)]
    others = [x + np.random.default_rng(9).normal(size=x.shape) for x in layers]
    expected = np.mean([np.abs(a - b).mean((1, 2, 3)) for a, b in zip(layers, others, strict=True)], 0)
    fake, real = ([tf.constant(x) for x in xs] for xs in (layers, others))
    with tf.GradientTape() as tape:
        tape.watch([fake, real])
        value = losses.feature_matching(fake, real)
    assert value.dtype == tf.float64
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    of_fake, of_real = tape.gradient(value, [fake, real])
    for a, b, gradient in zip(layers, others, of_fake, strict=True):
        np.testing.assert_allclose(gradient, np.sign(a - b) / a[0].size / 3, rtol=1e-10)
    assert of_real == [None] * 3


@pytest.mark.parametrize("count", [4, 3])
def test_a_weight_of_40_is_the_published_10(count):
    """pix2pixHD adds up 10 * 4 / layers * L1 over the layers; the discriminator's default has four."""
    assert len(ACTIVATIONS) == 4
    layers = [np.random.default_rng(k).normal(size=(2, 8, 8, 3 * k)) for k in range(1, count + 1)]
    others = [np.zeros_like(x) for x in layers]
    published = sum(10 * 4 / count * np.abs(x).mean((1, 2, 3)) for x in layers)
    found = 40 * losses.feature_matching([tf.constant(x) for x in layers], others)
    np.testing.assert_allclose(found, published, rtol=1e-12)


def test_activations_of_a_discriminator_share_its_weights():
    network = patchgan(name="discriminator", input_channels=3, filters=4, layers=2, norm="instance")
    inner = losses.with_activations(network, ["conv_0", "logits"])
    assert [id(w) for w in inner.trainable_weights[:2]] == [id(w) for w in network.trainable_weights[:2]]
    first, logits = inner(images(0))
    assert first.shape == (2, 16, 16, 4)
    np.testing.assert_array_equal(logits, network(images(0)))
    alone = losses.with_activations(network, ["conv_0"])
    np.testing.assert_array_equal(
        losses.feature_matching(alone(images(0)), alone(images(1))),
        losses.feature_matching([first], [alone(images(1))]),
    )
    with pytest.raises(ConfigurationError, match="discriminator: has no layer 'conv_9'.*conv_0.*logits"):
        losses.with_activations(network, ["conv_9"])


def built(settings):
    """The perceptual loss as a function of two batches."""
    return functools.partial(settings.distance, settings.build())


def test_perceptual_loss_of_vgg_equals_scipy(monkeypatch):
    made = []
    original = keras.applications.VGG16

    def vgg16(**settings):
        made.append(original(**settings))
        return made[-1]

    vgg16.__module__ = original.__module__
    monkeypatch.setattr(keras.applications, "VGG16", vgg16)
    loss = built(losses.Perceptual(application="VGG16", weights=None, layers=("block1_conv1",)))
    kernel, bias = (w.numpy() for w in made[0].get_layer("block1_conv1").weights)
    a, b = images(0, (2, 12, 10, 3)), images(1, (2, 12, 10, 3))

    def activations(x):  # in grey levels, blue first, without the mean of ImageNet
        x = ((x + 1) * 127.5)[..., ::-1] - [103.939, 116.779, 123.68]
        x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        filtered = [
            [scipy.signal.correlate(image, kernel[..., k], "valid")[..., 0] for k in range(64)] for image in x
        ]
        return np.maximum(np.moveaxis(filtered, 1, -1) + bias, 0)

    expected = np.abs(activations(a) - activations(b)).mean((1, 2, 3))
    np.testing.assert_allclose(loss(a, b), expected, rtol=1e-4)
    grey = a[..., :1]
    np.testing.assert_allclose(loss(grey, b), loss(np.repeat(grey, 3, -1), b), rtol=1e-6)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.utils.set_random_seed(5)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    network.save_weights(path)
    return str(path), network


MOBILENET_LAYERS = ("expanded_conv_project_BN", "block_3_expand_relu")


@pytest.mark.parametrize("place", ["disk", "store"])
def test_weights_come_from_a_file_and_layers_are_weighted(weights_file, place):
    path, network = weights_file
    if place == "store":
        tf.io.gfile.copy(path, path := "ram://mobilenet.weights.h5", overwrite=True)
    loss = built(
        losses.Perceptual(
            application="MobileNetV2", layers=MOBILENET_LAYERS, layer_weights=(0.5, 2.0), weights=path
        )
    )
    a, b = images(0), images(1)
    # MobileNetV2 takes images in [-1, 1], as they are.
    layers = [keras.Model(network.input, network.get_layer(name).output) for name in MOBILENET_LAYERS]
    distances = [np.abs(layer(a) - layer(b)).mean((1, 2, 3)) for layer in layers]
    np.testing.assert_allclose(loss(a, b), 0.5 * distances[0] + 2.0 * distances[1], rtol=1e-4)
    assert np.all(loss(a, a).numpy() == 0)


def test_perceptual_gradients_are_finite_and_go_to_the_image_only(weights_file):
    set_precision("float64")
    loss = built(
        losses.Perceptual(application="MobileNetV2", layers=MOBILENET_LAYERS, weights=weights_file[0])
    )
    a, b = (tf.constant(images(seed), tf.float64) for seed in (0, 1))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        value = loss(a, b)
    assert value.dtype == tf.float64 and value.shape == (2,)
    gradient, of_target = tape.gradient(value, [a, b])
    assert of_target is None
    direction, nudge = np.random.default_rng(3).normal(size=a.shape), 1e-6
    slope = np.sum(loss(a + nudge * direction, b) - loss(a - nudge * direction, b)) / (2 * nudge)
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras, about another network's file
def test_wrong_perceptual_settings_raise_errors(weights_file):
    for name in ("VGG9", "vgg19", "__doc__"):
        with pytest.raises(ConfigurationError, match=f"'{name}': not an image classifier"):
            losses.Perceptual(application=name)
    with pytest.raises(ConfigurationError, match="2 layers and 1 layer_weights"):
        losses.Perceptual(layers=("a", "b"), layer_weights=(1.0,))
    with pytest.raises(ConfigurationError, match="there is no such file"):
        losses.Perceptual(weights="nowhere.h5").build()
    with pytest.raises(ConfigurationError, match="there is no such file"):
        losses.Perceptual(weights="nowhere://vgg.h5").build()
    with pytest.raises(ConfigurationError, match="no layer 'block1_conv1'"):
        losses.Perceptual(application="MobileNetV2", weights=None, layers=("block1_conv1",)).build()
    with pytest.raises(ConfigurationError, match="cannot be built") as refusal:
        losses.Perceptual(application="VGG16", weights=weights_file[0]).build()
    assert "\n" not in str(refusal.value)
