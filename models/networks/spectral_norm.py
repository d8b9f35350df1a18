"""Spectral normalisation: a layer whose kernel has a largest singular value of about 1."""

import keras
import tensorflow as tf

_SMALLEST = 1e-12  # norms are not below it, so that a kernel of zeros stays one


@keras.saving.register_keras_serializable(package="gantry")
class SpectralNorm(keras.layers.Wrapper):
    """Divides the kernel of a layer by its largest singular value (Miyato et al., arXiv 1802.05957).

    The singular value comes from one power iteration a training pass, which starts from the vector u of the
    pass before: a variable [outputs], not trainable, so that it is saved, is the same on all replicas, and
    moves in a step of several micro-batches as it does in one. Outside training nothing moves. Gradients go
    through the singular value, with both vectors as constants, as in PyTorch's `spectral_norm`. The
    trained kernel itself is never changed; Keras' own `SpectralNormalization` overwrites it.

    Args:
      layer: one with a `kernel`: dense, convolution, or transposed convolution. The kernel is taken as
        the matrix [all other axes, outputs].
    """

    def __init__(self, layer, **kwargs):
        # The norm is taken of the kernel as it is stored; the layer itself casts to its compute dtype.
        super().__init__(layer, autocast=False, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        if not hasattr(self.layer, "kernel"):
            raise ValueError(f"{self.layer.name} has no kernel, whose spectral norm could be taken")
        self.u = self.add_weight(
            shape=(self._matrix(self.layer.kernel).shape[1],),
            name="u",
            initializer=keras.initializers.RandomNormal(0.0, 1.0),
            trainable=False,
            dtype=self.layer.kernel.dtype,
        )

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def call(self, x, training=None):
        kernel = tf.convert_to_tensor(self.layer.kernel)
        matrix = self._matrix(kernel)  # [inputs, outputs]
        constant = tf.stop_gradient(matrix)
        v = _unit(tf.linalg.matvec(constant, self.u.value))  # [inputs]
        u = _unit(tf.linalg.matvec(constant, v, transpose_a=True))  # [outputs]
        if training:
            self.u.assign(u)
        norm = tf.reduce_sum(v * tf.linalg.matvec(matrix, u))
        normalized = kernel / tf.maximum(norm, _SMALLEST)
        # The layer sees another value of its variable, without an assignment.
        with keras.StatelessScope([(self.layer.kernel, normalized)], initialize_variables=False):
            return self.layer(x)

    def _matrix(self, kernel):
        kernel = tf.convert_to_tensor(kernel)
        if isinstance(self.layer, keras.layers.Conv2DTranspose):
            kernel = tf.transpose(kernel, [0, 1, 3, 2])  # [h, w, outputs, inputs] -> outputs last
        return tf.reshape(kernel, [-1, kernel.shape[-1]])


def _unit(vector):
    return vector / tf.maximum(tf.norm(vector), _SMALLEST)
