"""Features of Keras applications against the application itself, with Pillow's resizing."""

import hashlib
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import imagenet_utils
from PIL import Image

from engine.errors import ConfigurationError
from models import application_features
from models.application_features import ApplicationFeatures


@pytest.fixture(scope="module")
def stored_weights(tmp_path_factory):
    """The path of weights of MobileNetV2 without the top, and the network."""
    path = str(tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5")
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, pooling="avg")
    network.save_weights(path)
    return path, network


def test_features_are_those_of_the_application(stored_weights):
    path, network = stored_weights
    extractor = ApplicationFeatures(application="MobileNetV2", weights=path, image_size=64)
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 80, 3), np.uint8)
    keras.config.set_dtype_policy("mixed_bfloat16")  # that of a run; features stay in float32
    state = random.getstate()
    compute = extractor.build()
    assert random.getstate() == state and keras.config.dtype_policy().name == "mixed_bfloat16"
    found = tf.function(compute)(images)
    assert found.dtype == tf.float32 and found.shape == (2, 1280)
    bicubic = Image.Resampling.BICUBIC
    resized = [
        [Image.fromarray(channel.astype(np.float32)).resize((64, 64), bicubic) for channel in image]
        for image in np.moveaxis(images, -1, 1)
    ]
    pixels = np.moveaxis(np.array(resized, np.float32), 1, -1)
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(pixels)
    np.testing.assert_allclose(found, network(preprocessed, training=False), rtol=1e-3, atol=1e-6)
    fractions = (images / 255).astype(np.float32)
    np.testing.assert_allclose(compute(fractions, (0.0, 1.0)), found, rtol=1e-3, atol=1e-6)
    with pytest.raises(TypeError, match="MobileNetV2: the range of float32 images is unknown"):
        compute(fractions)
    grey = compute(images[..., :1])
    np.testing.assert_allclose(grey, compute(np.repeat(images[..., :1], 3, -1)), rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="needs RGB or 1 channel, not 2"):
        compute(images[..., :2])


def test_identity_names_weights_and_size(stored_weights):
    path, _ = stored_weights
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    extractor = ApplicationFeatures(application="MobileNetV2", weights=path)
    assert extractor.identity == f"MobileNetV2 ({digest}) at 224 pixels"
    assert ApplicationFeatures().identity == "InceptionV3 (imagenet) at 299 pixels"


def test_image_sizes_are_those_of_keras(monkeypatch):
    sizes = {}

    class Stop(Exception):
        pass

    def note(input_shape, default_size, **_):
        sizes[name] = default_size
        raise Stop

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", note)
    applications = [name for name, build in vars(keras.applications).items() if callable(build)]
    applications = [name for name in applications if not name.startswith("MobileNetV3")]  # has no default
    for name in applications:
        with pytest.raises(Stop):
            getattr(keras.applications, name)(weights=None)
    assert len(sizes) > 30
    assert sizes == {name: ApplicationFeatures(application=name)._size() for name in applications}
    assert application_features._IMAGE_SIZES.keys() <= sizes.keys()


def test_what_cannot_be_built_is_refused(tmp_path, stored_weights):
    with pytest.raises(
        ConfigurationError, match=r"ApplicationFeatures.application = 'Nothing': not an image"
    ):
        ApplicationFeatures(application="Nothing")
    with pytest.raises(ConfigurationError, match="image_size = 0: must be at least 1"):
        ApplicationFeatures(image_size=0)
    missing = ApplicationFeatures(application="MobileNetV2", weights=str(tmp_path / "none.h5"))
    with pytest.raises(ConfigurationError, match="there is no such file; give the path of a file of weights"):
        missing.build()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _ = missing.identity
    other = ApplicationFeatures(application="MobileNet", weights=stored_weights[0], image_size=64)
    with pytest.raises(ConfigurationError, match="MobileNet with weights .* cannot be built") as caught:
        other.build()
    assert "\n" not in str(caught.value)
