"""How side information enters a network: as further channels, or as FiLM.

FiLM (Perez et al., arXiv 1709.07871) scales and shifts each channel of each normalised layer; a small network
computes the scales and shifts from a vector.
"""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from data.roles import SIDE_MAP, SIDE_VECTOR
from models.networks.layers import Shape, at_least_float32, variable_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideShapes:
    """Sizes of a network's additional inputs, and how it uses them; none by default.

    Attributes:
      tiled: length of a vector that is repeated over the image as further channels.
      tiled_at: "input"; or "all", which repeats it at each downsampling convolution of a U-Net.
      modulating: length of a vector for FiLM.
      film_units: units of FiLM's hidden layer.
      map_channels: channels of a map that is concatenated to the image.
    """

    tiled: int = 0
    tiled_at: str = "input"
    modulating: int = 0
    film_units: int = 64
    map_channels: int = 0


NO_SIDE_INPUTS = SideShapes()


class SideInputs:
    """The additional inputs of one network, as symbolic tensors; for functions that build networks.

    Args:
      shapes: their sizes.
    """

    def __init__(self, shapes: SideShapes) -> None:
        def symbolic(name: str, *shape: int | None) -> keras.KerasTensor | None:
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
        """The image [B, H, W, C] with the tiled vector and the map as further channels."""
        if self._tiled:
            image = TiledConcatenation(name="side_vector_concatenation")([image, self._vector])
        if self._map is not None:
            image = keras.layers.Concatenate(name="side_map_concatenation")([image, self._map])
        return image

    def concatenated_deeper(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """An inner activation with the tiled vector as further channels, if it is tiled at "all".

        Args:
          x: [B, H, W, C].
          name: prefix of the layer's name.
        """
        if not self._tiled_deeper:
            return x
        return TiledConcatenation(name=f"{name}_side_vector_concatenation")([x, self._vector])

    def modulated(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A normalised activation after FiLM, if the network has it.

        Args:
          x: [B, H, W, C].
          name: the layer is called `<name>_film`.
        """
        return x if self._hidden is None else FeatureModulation(name=f"{name}_film")([x, self._hidden])

    def with_image(self, image: keras.KerasTensor) -> keras.KerasTensor | list[keras.KerasTensor]:
        """All inputs of the network, in the order of `SideInformation.network_inputs`."""
        others = [other for other in (self._vector, self._map) if other is not None]
        return [image, *others] if others else image


@keras.saving.register_keras_serializable(package="gantry")
class TiledConcatenation(keras.layers.Layer):
    """Repeats a vector over an image: [image [B, H, W, C], vector [B, K]] -> [B, H, W, C + K]."""

    def compute_output_shape(self, input_shape: tuple[Shape, Shape]) -> Shape:
        """Keras calls it for symbolic inputs."""
        image, vector = input_shape
        return (*image[:-1], image[-1] + vector[-1])

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """[image [B, H, W, C], vector [B, K]] -> [B, H, W, C + K]."""
        image, vector = inputs
        shape = tf.concat([tf.shape(image)[:-1], tf.shape(vector)[-1:]], axis=0)
        tiled = tf.broadcast_to(vector[:, tf.newaxis, tf.newaxis, :], shape)  # [B, H, W, K]
        return tf.concat([image, tiled], axis=-1)


@keras.saving.register_keras_serializable(package="gantry")
class FeatureModulation(keras.layers.Layer):
    """FiLM: [x [B, H, W, C], hidden [B, U]] -> (1 + gamma) x + beta; gamma, beta [B, C] are affine in hidden.

    The weights are 0 at first, so the layer initially changes nothing.
    """

    def build(self, input_shape: tuple[Shape, Shape]) -> None:
        """Adds the weights of the affine map."""
        (*_, channels), (*_, units) = input_shape
        self.kernel = self.add_weight(shape=(units, 2 * channels), initializer="zeros", name="kernel")
        self.bias = self.add_weight(shape=(2 * channels,), initializer="zeros", name="bias")

    def compute_output_shape(self, input_shape: tuple[Shape, Shape]) -> Shape:
        """Keras calls it for symbolic inputs."""
        return input_shape[0]

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """[x [B, H, W, C], hidden [B, U]] -> [B, H, W, C]."""
        x, hidden = map(at_least_float32, inputs)
        affine = hidden @ tf.cast(self.kernel, x.dtype) + tf.cast(self.bias, x.dtype)  # [B, 2 C]
        gamma, beta = tf.split(affine[:, tf.newaxis, tf.newaxis, :], 2, axis=-1)  # [B, 1, 1, C]
        return tf.cast((1 + gamma) * x + beta, self.compute_dtype)
