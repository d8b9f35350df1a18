"""What puts side information into a network: further channels, or FiLM.

FiLM (Perez et al., arXiv 1709.07871) scales and shifts every channel of every normalised layer by what a
small network makes of the numbers.
"""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from data.roles import SIDE_MAP, SIDE_VECTOR
from models.networks.layers import at_least_float32, variable_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideShapes:
    """What one network gets beside its picture, and how; nothing by default.

    Args:
      tiled: K of a vector that becomes K constant channels of the picture.
      tiled_at: "input"; or "all", of what every downsampling convolution of a U-Net sees.
      modulating: K of a vector that FiLM makes scales and shifts of.
      film_units: units of FiLM's hidden layer.
      map_channels: of a map that becomes further channels of the picture.
    """

    tiled: int = 0
    tiled_at: str = "input"
    modulating: int = 0
    film_units: int = 64
    map_channels: int = 0


class SideInputs:
    """The inputs of one network beside its picture, as symbolic tensors; for builders of networks."""

    def __init__(self, shapes: SideShapes):
        def symbolic(name, *shape):
            return keras.Input(shape, dtype=variable_dtype(), name=name) if shape[-1] else None

        self._tiled = bool(shapes.tiled)
        self._tiled_deeper = self._tiled and shapes.tiled_at == "all"
        self._vector = symbolic(SIDE_VECTOR, shapes.tiled or shapes.modulating)
        self._map = symbolic(SIDE_MAP, None, None, shapes.map_channels)
        self._hidden = None
        if shapes.modulating:
            hidden = keras.layers.Dense(shapes.film_units, name="film_hidden")(self._vector)
            self._hidden = keras.layers.LeakyReLU(0.2, name="film_activation")(hidden)

    def concatenated(self, image: keras.KerasTensor) -> keras.KerasTensor:
        """[B, H, W, C] with what is concatenated to it as further channels."""
        if self._tiled:
            image = TiledConcatenation(name="side_vector_concatenation")([image, self._vector])
        if self._map is not None:
            image = keras.layers.Concatenate(name="side_map_concatenation")([image, self._map])
        return image

    def concatenated_deeper(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """[B, H, W, C] inside the network with the vector as further channels, where it is tiled at "all"."""
        if not self._tiled_deeper:
            return x
        return TiledConcatenation(name=f"{name}_side_vector_concatenation")([x, self._vector])

    def modulated(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """[B, H, W, C] after FiLM, where there is some; the layer's name is `name`_film."""
        return x if self._hidden is None else FeatureModulation(name=f"{name}_film")([x, self._hidden])

    def with_image(self, image: keras.KerasTensor) -> keras.KerasTensor | list[keras.KerasTensor]:
        """All inputs of the network, in the order of `SideInformation.beside`."""
        others = [other for other in (self._vector, self._map) if other is not None]
        return [image, *others] if others else image


@keras.saving.register_keras_serializable(package="gantry")
class TiledConcatenation(keras.layers.Layer):
    """[image [B, H, W, C], vector [B, K]] -> [B, H, W, C + K]: the vector at every place."""

    def compute_output_shape(self, input_shape):
        image, vector = input_shape
        return (*image[:-1], image[-1] + vector[-1])

    def call(self, inputs):
        image, vector = inputs
        shape = tf.concat([tf.shape(image)[:-1], tf.shape(vector)[-1:]], axis=0)
        tiled = tf.broadcast_to(vector[:, tf.newaxis, tf.newaxis, :], shape)  # [B, H, W, K]
        return tf.concat([image, tiled], axis=-1)


@keras.saving.register_keras_serializable(package="gantry")
class FeatureModulation(keras.layers.Layer):
    """FiLM: [x [B, H, W, C], hidden [B, U]] -> (1 + gamma) x + beta, both [B, C] and affine in hidden.

    The weights start at zero, so that the layer changes nothing before it is trained.
    """

    def build(self, input_shape):
        (*_, channels), (*_, units) = input_shape
        self.kernel = self.add_weight(shape=(units, 2 * channels), initializer="zeros", name="kernel")
        self.bias = self.add_weight(shape=(2 * channels,), initializer="zeros", name="bias")

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def call(self, inputs):
        x, hidden = map(at_least_float32, inputs)
        made = hidden @ tf.cast(self.kernel, x.dtype) + tf.cast(self.bias, x.dtype)  # [B, 2 C]
        gamma, beta = tf.split(made[:, tf.newaxis, tf.newaxis, :], 2, axis=-1)  # [B, 1, 1, C]
        return tf.cast((1 + gamma) * x + beta, self.compute_dtype)
