"""Features of a network of `keras.applications`, such as InceptionV3, for FID and KID."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import keras
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from engine.feature_extractor import FeatureExtractor, FeatureNetwork
from models.networks.keras_application import application_module, build_application

_DEFAULT_SIZE = 224
_IMAGE_SIZES = {
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2L": 480,
    "EfficientNetV2M": 480,
    "EfficientNetV2S": 384,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}
"""Height and width in pixels for which an application was trained; of the others, `_DEFAULT_SIZE`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplicationFeatures(FeatureExtractor):
    """The last activations of an image classifier, averaged over the image.

    Images are resized to the classifier's size, bicubically with antialiasing and without rounding, and
    preprocessed as it was trained. It computes in float32 whatever the precision of the run.

    Source: Heusel et al., arXiv 1706.08500, use Inception's last pooling layer. Published figures are of the
    weights that TensorFlow released in 2015; Keras's InceptionV3 is another network with other weights, so
    its figures are not comparable with published ones. Resizing as Parmar et al., arXiv 2104.11222, advise.

    Attributes:
      application: an image classifier of `keras.applications`.
      weights: "imagenet" downloads the weights that Keras publishes; else the path of a file of weights
        without the top.
      image_size: height and width in pixels to which images are resized; None for that of the application.

    Raises:
      ConfigurationError: the application is unknown.
    """

    application: str = "InceptionV3"
    weights: str = "imagenet"
    image_size: int | None = None

    def __post_init__(self) -> None:
        application_module(self.application, setting="ApplicationFeatures.application")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigurationError(
                f"ApplicationFeatures.image_size = {self.image_size}: must be at least 1; change it"
            )

    @property
    def identity(self) -> str:
        """The application, its weights (of a file, the beginning of its SHA-256) and the size of images.

        Raises:
          ConfigurationError: the file cannot be read.
        """
        return f"{self.application} ({self._weights_identity()}) at {self._size()} pixels"

    def build(self) -> FeatureNetwork:
        """Builds the network; see `FeatureExtractor`."""
        module = application_module(self.application, setting="ApplicationFeatures.application")
        network, size = self._network(), self._size()

        def features(images: tf.Tensor, value_range: tuple[float, float] | None = None) -> tf.Tensor:
            x = imaging.to_signed_rgb(images, value_range, what=self.application)
            x = imaging.resample((x + 1.0) * 127.5, height=size, width=size)
            return network(module.preprocess_input(x), training=False)  # [B, D]

        return features

    def _network(self) -> keras.Model:
        policy, state = keras.config.dtype_policy(), random.getstate()
        keras.config.set_dtype_policy("float32")
        try:
            network = build_application(
                self.application,
                weights=self.weights,
                owner="ApplicationFeatures",
                image_size=self._size(),
                pooling="avg",
            )
        finally:
            keras.config.set_dtype_policy(policy)
            random.setstate(state)  # Keras draws a seed for each kernel, although weights replace them
        network.trainable = False
        return network

    def _size(self) -> int:
        return self.image_size or _IMAGE_SIZES.get(self.application, _DEFAULT_SIZE)

    def _weights_identity(self) -> str:
        if self.weights == "imagenet":
            return "imagenet"
        try:
            with tf.io.gfile.GFile(self.weights, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()[:12]
        except tf.errors.OpError as error:
            raise ConfigurationError(
                f"ApplicationFeatures.weights = {self.weights!r}: cannot be read ({error.message}); give the "
                f"path of a file of weights of {self.application}, or 'imagenet' to download them"
            ) from error
