"""Perceptual loss: distance between the activations of a network trained to recognise pictures."""

import contextlib
import dataclasses
import os
import sys
import tempfile

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from models.losses.feature_matching import with_activations
from models.losses.pixel import l1
from models.networks.layers import at_least_float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual:
    """Settings of a perceptual loss (Johnson et al., arXiv 1603.08155), with L1 as the distance.

    Args:
      application: a class of `keras.applications` for pictures, such as "VGG19".
      layers: names of the layers compared; None takes those of pix2pixHD, which are VGG's.
      layer_weights: one factor a layer; None weighs all alike, with sum 1.
      weights: "imagenet" downloads what Keras publishes for it; else a path of a file of weights without
        the top, as `model.save_weights` writes it (.weights.h5), or as Keras publishes it; None leaves them
        random, as drawn from the seed of the run.
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

    def __post_init__(self):
        if not hasattr(self._module(), "preprocess_input"):
            raise ConfigurationError(
                f"Perceptual.application = {self.application!r}: no picture network of keras.applications; "
                "choose one such as 'VGG19' or 'MobileNetV2'"
            )
        if not self.layers or len(self.layer_weights or self.layers) != len(self.layers):
            raise ConfigurationError(
                f"Perceptual: {len(self.layers)} layers and {len(self.layer_weights or ())} layer_weights; "
                "name at least one layer, and give one weight for each or None"
            )

    def build(self, *, height=None, width=None):
        """The loss as a function (a, b) -> [B]; makes variables that nothing trains or saves.

        To be called in `Task.networks`, under the strategy's scope, and kept outside what that returns: the
        weights never change, and would else be in every checkpoint.

        The function takes pictures [B, H, W, C] in [-1, 1] of 1 channel (grey) or 3, no smaller than the
        network takes, and gives float32 [B] (float64 under that policy); there is no gradient through b,
        the target.

        Args:
          height, width: of the pictures, where they are known: those too small are then refused.

        Raises:
          ConfigurationError: there are no such weights, they do not fit, a layer does not exist, or the
            pictures leave a layer nothing.
        """
        features = with_activations(self._network(), self.layers)
        if height and width:
            self._check_size(features, height, width)
        features.trainable = False
        preprocess = self._module().preprocess_input
        weights = self.layer_weights or [1 / len(self.layers)] * len(self.layers)

        def activations(pictures):
            pictures = (at_least_float32(pictures) + 1) * 127.5
            if pictures.shape[-1] == 1:
                pictures = tf.repeat(pictures, 3, axis=-1)  # [B, H, W, 3]
            found = features(preprocess(pictures), training=False)
            return found if isinstance(found, list) else [found]

        def loss(a, b):
            pairs = zip(weights, activations(a), activations(tf.stop_gradient(b)), strict=True)
            return tf.add_n([weight * l1(x, y) for weight, x, y in pairs])

        return loss

    def _check_size(self, features, height, width):
        try:
            shapes = [output.shape for output in features(keras.KerasTensor((1, height, width, 3)))]
        except ValueError:  # Keras counts a side below 1
            shapes = [(0,)]
        if not all(all(shape) for shape in shapes):
            raise ConfigurationError(
                f"Perceptual.layers = {self.layers}: pictures of {height}x{width} pixels are too small for "
                f"all of these layers of {self.application}; raise CROP_SIZE, or name earlier layers"
            )

    def _network(self):
        if self.weights not in (None, "imagenet") and not _is_file(self.weights):
            raise ConfigurationError(
                f"Perceptual.weights = {self.weights!r}: there is no such file; give the path of a file of "
                f"weights of {self.application}, or 'imagenet' to download them"
            )
        build = getattr(keras.applications, self.application)
        try:
            with _on_a_disk(self.weights) as weights:
                return build(include_top=False, weights=weights, input_shape=(None, None, 3))
        except Exception as error:  # Keras raises plain Exception when a download fails
            raise ConfigurationError(
                f"Perceptual: {self.application} with weights {self.weights!r} cannot be made: "
                f"{' '.join(str(error).split())[:300]}; give a file of its weights without the top"
            ) from error

    def _module(self):
        """Where the application is defined, with the `preprocess_input` that belongs to it."""
        return sys.modules.get(getattr(getattr(keras.applications, self.application, None), "__module__", ""))


def _is_file(path):
    try:
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    except tf.errors.OpError:  # there is no store of that name
        return False


@contextlib.contextmanager
def _on_a_disk(weights):
    """Gives what Keras can read: of a file that is in a store (gs://, ...) a copy."""
    if weights is None or "://" not in weights:
        yield weights
        return
    with tempfile.TemporaryDirectory(prefix="gantry_weights_") as folder:
        copy = os.path.join(folder, os.path.basename(weights))
        tf.io.gfile.copy(weights, copy)
        yield copy
