"""Inputs, padding and convolutions of the networks, with PyTorch's geometry.

Weights trained by the reference (pytorch-CycleGAN-and-pix2pix) give the reference's images only if all
padding and cropping is the same, and the moments of `models.networks.norms`. Each class documents how it
differs from Keras's own layer, and why. All layers are NHWC.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from engine.replica_context import computes_on_cpu
from models.networks import matrix_convolution

INITIAL_STDDEV = 0.02

Shape = tuple[Any, ...]
"""Sizes of a tensor's axes; None where unknown."""


def at_least_float32(x: Any) -> tf.Tensor:
    """Casts half precision to float32, for means and sums; float64 stays float64.

    Args:
      x: a tensor, or what TensorFlow can convert to one.
    """
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


@keras.saving.register_keras_serializable(package="gantry")
class ReflectionPadding2D(keras.layers.Layer):
    """Mirrors the border without repeating the edge: [B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C].

    Args:
      padding: pixels on each side; H and W must be larger.
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, padding: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        grow = 2 * self.padding
        return (batch, height and height + grow, width and width + grow, channels)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C]."""
        p = self.padding
        return tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]], mode="REFLECT")  # [B, H+2p, W+2p, C]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "padding": self.padding}


def _initial_kernel() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, INITIAL_STDDEV)


@keras.saving.register_keras_serializable(package="gantry")
class Conv(keras.layers.Conv2D):
    """2-D convolution with the geometry of PyTorch's `Conv2d(kernel_size, stride, padding)`.

    [B, H, W, C] -> [B, floor((H + 2 padding - kernel) / stride) + 1, ..., filters]. It adds zeros on both
    sides and makes a VALID convolution: at stride 2, TensorFlow's SAME pads even sizes by (0, 1) for a 3x3
    kernel and odd sizes unevenly for a 4x4 kernel, which shifts the image.

    Args:
      filters: number of outputs.
      kernel: height and width of the kernel.
      stride: in both directions.
      padding: zeros on each side.
      **kwargs: those of `keras.layers.Conv2D`. The initial kernel is N(0, 0.02) by default.
    """

    def __init__(
        self, filters: int, kernel: int, *, stride: int = 1, padding: int = 0, **kwargs: Any
    ) -> None:
        kwargs = {"kernel_initializer": _initial_kernel()} | kwargs
        super().__init__(filters, kernel, stride, **kwargs)
        self.zeros = padding  # Keras's own attribute `padding` is "valid"

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        grow = 2 * self.zeros
        padded = (batch, height and height + grow, width and width + grow, channels)
        return super().compute_output_shape(padded)

    def convolution_op(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Pads and convolves; Keras adds the bias."""
        zeros = [self.zeros, self.zeros]
        padded = tf.pad(x, [[0, 0], zeros, zeros, [0, 0]]) if self.zeros else x
        if self.filters == 1 and self.strides == (1, 1) and computes_on_cpu():
            return matrix_convolution.single_channel(padded, tf.convert_to_tensor(kernel))
        return super().convolution_op(padded, kernel)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "kernel": self.kernel_size[0],
            "stride": self.strides[0],
            "padding": self.zeros,
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable(package="gantry")
class ConvTranspose(keras.layers.Conv2DTranspose):
    """2-D transposed convolution that exactly doubles: [B, H, W, C] -> [B, 2H, 2W, filters].

    Args:
      filters: number of outputs.
      kernel: height and width of the kernel. 4 is PyTorch's `ConvTranspose2d(4, stride=2, padding=1)`, which
        is SAME. 3 is `ConvTranspose2d(3, stride=2, padding=1, output_padding=1)`: VALID gives 2H + 1 rows, of
        which the layer crops the first; SAME would crop the last and shift the image.
      **kwargs: those of `keras.layers.Conv2DTranspose`. The initial kernel is N(0, 0.02).

    Raises:
      ValueError: another kernel size.
    """

    def __init__(self, filters: int, kernel: int, **kwargs: Any) -> None:
        if kernel not in (3, 4):
            raise ValueError(f"ConvTranspose: a kernel of {kernel} does not double the size; use 3 or 4")
        padding = "same" if kernel == 4 else "valid"
        super().__init__(filters, kernel, 2, padding, kernel_initializer=_initial_kernel(), **kwargs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, _ = input_shape
        return (batch, height and 2 * height, width and 2 * width, self.filters)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, 2H, 2W, filters]."""
        y = super().call(x)
        return y[:, 1:, 1:] if self.padding == "valid" else y  # [B, 2H, 2W, C]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "kernel": self.kernel_size[0],
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
        }


def variable_dtype() -> str:
    """The dtype of the variables under the current policy, such as "float32" under mixed_bfloat16."""
    return keras.config.dtype_policy().variable_dtype


def image_input(channels: int) -> keras.KerasTensor:
    """Creates the input of a network, [B, H, W, channels], in the dtype of the variables."""
    # Keras's default is float32 under any policy, which would round the inputs of float64 networks.
    return keras.Input((None, None, channels), dtype=variable_dtype(), name="image")
