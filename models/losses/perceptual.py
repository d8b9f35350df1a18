"""Perceptual loss: the distance between activations of a network trained to recognise images."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from models.losses.feature_matching import with_activations
from models.losses.pixel import l1
from models.networks.keras_application import application_module, build_application
from models.networks.layers import at_least_float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual:
    """Settings of a perceptual loss (Johnson et al., arXiv 1603.08155), with L1 as the distance.

    Attributes:
      application: an image classifier of `keras.applications`, such as "VGG19".
      layers: names of the layers to compare; by default VGG's layers that pix2pixHD uses.
      layer_weights: one factor for each layer; None gives all the same, with sum 1.
      weights: "imagenet" downloads the weights that Keras publishes; else the path of a file of weights
        without the top, as written by `model.save_weights` (.weights.h5) or published by Keras; None leaves
        them random, from the seed of the run.

    Raises:
      ConfigurationError: the application is unknown, or the layers and their weights do not fit.
    """

    application: str = "VGG19"
    layers: tuple[str, ...] = (
        "block1_conv1",
        "block2_conv1",
        "block3_conv1",
        "block4_conv1",
        "block5_conv1",
    )
    layer_weights: tuple[float, ...] | None = None
    weights: str | None = "imagenet"

    def __post_init__(self) -> None:
        application_module(self.application, setting="Perceptual.application")
        if not self.layers or len(self.layer_weights or self.layers) != len(self.layers):
            raise ConfigurationError(
                f"Perceptual: {len(self.layers)} layers and {len(self.layer_weights or ())} layer_weights; "
                "name at least one layer, and give one weight for each or None"
            )

    def build(self, *, height: int | None = None, width: int | None = None) -> keras.Model:
        """Builds the network whose activations `distance` compares; nothing trains it.

        Return it from `Task.frozen_networks`, since checkpoints need not hold weights that never change.

        Args:
          height: of the images, if known, to check their size.
          width: of the images, if known.

        Raises:
          ConfigurationError: there are no such weights or they do not fit, a layer does not exist, or the
            images are too small for a layer.
        """
        network = with_activations(
            build_application(self.application, weights=self.weights, owner="Perceptual"), self.layers
        )
        if height and width:
            self._check_size(network, height, width)
        network.trainable = False
        return network

    def distance(self, network: keras.Model, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """Computes the weighted sum over layers of the L1 distance between activations.

        Args:
          network: the result of `build`.
          a: images [B, H, W, C] in [-1, 1] with 1 channel (grey) or 3.
          b: targets in the same range with the same height and width; no gradient flows through them.

        Returns:
          float32 [B]; float64 under that policy.
        """
        weights = self.layer_weights or [1 / len(self.layers)] * len(self.layers)
        activations = self._activations(network, a), self._activations(network, tf.stop_gradient(b))
        pairs = zip(weights, *activations, strict=True)
        return tf.add_n([weight * l1(x, y) for weight, x, y in pairs])

    def _activations(self, network: keras.Model, images: tf.Tensor) -> list[tf.Tensor]:
        images = (at_least_float32(images) + 1) * 127.5
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)  # [B, H, W, 3]
        module = application_module(self.application, setting="Perceptual.application")
        found = network(module.preprocess_input(images), training=False)
        return found if isinstance(found, list) else [found]

    def _check_size(self, network: keras.Model, height: int, width: int) -> None:
        try:
            shapes = [output.shape for output in network(keras.KerasTensor((1, height, width, 3)))]
        except ValueError:  # Keras computed a height or width below 1
            shapes = [(0,)]
        if not all(all(shape) for shape in shapes):
            raise ConfigurationError(
                f"Perceptual.layers = {self.layers}: images of {height}x{width} pixels are too small for all "
                f"of these layers of {self.application}; raise CROP_SIZE, or name earlier layers"
            )
