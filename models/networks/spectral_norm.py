"""Spectral normalisation: keeps the largest singular value of a layer's kernel near 1."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from models.networks.layers import Shape

_SMALLEST = 1e-12  # smallest divisor, so that a kernel of zeros stays zero


@keras.saving.register_keras_serializable(package="gantry")
class SpectralNorm(keras.layers.Wrapper):
    """Divides the kernel of a layer by its largest singular value (Miyato et al., arXiv 1802.05957).

    Each training pass estimates the singular value by one power iteration, which starts from the vector u of
    the previous pass. u is a non-trainable variable [outputs], so it is saved, equal on all replicas, and
    changes in a step of several micro-batches as in a step of one. Outside training it does not change.
    Gradients flow through the singular value, with both vectors as constants, as in PyTorch's
    `spectral_norm`. The trained kernel itself does not change; Keras's own `SpectralNormalization` overwrites
    it.

    Args:
      layer: a layer with a `kernel`: dense, convolution or transposed convolution. The kernel is treated as
        the matrix [all other axes, outputs].
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        # The norm is that of the stored kernel; the layer itself casts to its compute dtype.
        super().__init__(layer, autocast=False, **kwargs)

    def build(self, input_shape: Shape) -> None:
        """Adds u.

        Raises:
          ValueError: the layer has no kernel.
        """
        super().build(input_shape)
        if not hasattr(self.layer, "kernel"):
            raise ValueError(f"{self.layer.name}: has no kernel to normalise; wrap another layer")
        self.u = self.add_weight(
            shape=(self._matrix(self.layer.kernel).shape[1],),
            name="u",
            initializer=keras.initializers.RandomNormal(0.0, 1.0),
            trainable=False,
            dtype=self.layer.kernel.dtype,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        return self.layer.compute_output_shape(input_shape)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Calls the layer with its kernel divided by the singular value."""
        kernel = tf.convert_to_tensor(self.layer.kernel)
        matrix = self._matrix(kernel)  # [inputs, outputs]
        constant = tf.stop_gradient(matrix)
        v = _unit(tf.linalg.matvec(constant, self.u.value))  # [inputs]
        u = _unit(tf.linalg.matvec(constant, v, transpose_a=True))  # [outputs]
        if training:
            self.u.assign(u)
        norm = tf.reduce_sum(v * tf.linalg.matvec(matrix, u))
        normalised = kernel / tf.maximum(norm, _SMALLEST)
        # The scope gives the layer another value of its variable without an assignment. It hides a scope
        # around it, so it has the layer's other variables too.
        others = [(v, v.value) for v in self.layer.variables if v is not self.layer.kernel]
        with keras.StatelessScope([(self.layer.kernel, normalised), *others], initialize_variables=False):
            return self.layer(x)

    def _matrix(self, kernel: Any) -> tf.Tensor:
        kernel = tf.convert_to_tensor(kernel)
        if isinstance(self.layer, keras.layers.Conv2DTranspose):
            kernel = tf.transpose(kernel, [0, 1, 3, 2])  # [h, w, outputs, inputs] -> outputs last
        return tf.reshape(kernel, [-1, kernel.shape[-1]])


def _unit(vector: tf.Tensor) -> tf.Tensor:
    return vector / tf.maximum(tf.norm(vector), _SMALLEST)
