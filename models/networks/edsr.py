"""Residual networks at the input's resolution: restoration, and upsampling by 2, 4, 8, ...

The trunk is that of SRResNet (Ledig et al., arXiv 1609.04802) with batch norm, or without a norm that of EDSR
(Lim et al., arXiv 1707.02921), which keeps the contrast of each image.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from models.networks import layers, norms
from models.networks.conditioning import NO_SIDE_INPUTS, SideInputs, SideShapes
from models.networks.dropout import Dropout


@keras.saving.register_keras_serializable(package="gantry")
class PixelShuffle(keras.layers.Layer):
    """Turns channels into pixels: [B, H, W, 4 C] -> [B, 2 H, 2 W, C] (Shi et al., arXiv 1609.05158)."""

    def compute_output_shape(self, input_shape: layers.Shape) -> layers.Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels // 4)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, 4 C] -> [B, 2 H, 2 W, C]."""
        return tf.nn.depth_to_space(x, 2)


@keras.saving.register_keras_serializable(package="gantry")
class Enlarge(keras.layers.Layer):
    """Bicubic upsampling: [B, H, W, C] -> [B, factor H, factor W, C]; see `data.imaging.enlarge`.

    Args:
      factor: a whole number, at least 1.
      **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def compute_output_shape(self, input_shape: layers.Shape) -> layers.Shape:
        """Keras calls it for symbolic inputs."""
        batch, height, width, channels = input_shape
        return (batch, height and self.factor * height, width and self.factor * width, channels)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, factor H, factor W, C]."""
        height, width = tf.unstack(tf.shape(x)[1:3] * self.factor)
        return imaging.enlarge(x, height=height, width=width)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "factor": self.factor}


def edsr(
    *,
    name: str,
    input_channels: int,
    output_channels: int,
    blocks: int,
    factor: int = 1,
    filters: int = 64,
    norm: str = "none",
    dropout: bool = False,
    inference_norm: str = "batch_statistics",
    side: SideShapes = NO_SIDE_INPUTS,
) -> keras.Model:
    """Builds residual blocks at the input's size, followed by one pixel shuffle for each doubling.

    If inputs and outputs have the same number of channels, the network adds its result to the bicubic
    upsampling of the input, and so initially returns that. There is no tanh, which would change it: outputs
    may exceed [-1, 1] a little.

    Args:
      name: of the model.
      input_channels: of the images.
      output_channels: of the outputs.
      blocks: number of residual blocks.
      factor: output size / input size, a power of 2.
      filters: channels of all inner layers.
      norm: one of `norms.NORMS`.
      dropout: whether each block has a dropout of 0.5 in its middle.
      inference_norm: one of `norms.INFERENCE_NORMS`.
      side: sizes of additional inputs.

    Returns:
      A model from [B, H, W, input_channels] in [-1, 1], of any H and W, to [B, factor H, factor W,
      output_channels] in the policy's variable dtype. With `side` the input is a list; see
      `SideInformation.network_inputs`.

    Raises:
      ConfigurationError: `factor` is not a power of 2.
    """
    doublings = factor.bit_length() - 1
    if factor < 1 or 2**doublings != factor:
        raise ConfigurationError(f"EDSR: cannot enlarge {factor} times; the factor must be 1, 2, 4, 8, ...")
    use_bias = norms.has_bias(norm)

    def conv(x: keras.KerasTensor, width: int, *, name: str, **kwargs: Any) -> keras.KerasTensor:
        initial = {"kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")}
        return layers.Conv(width, 3, padding=1, name=name, **(initial | kwargs))(x)

    def normalise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return inputs.modulated(norms.normalise(x, norm, inference_norm=inference_norm, name=name), name)

    def residual_block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """[B, H, W, filters] -> the same shape."""
        y = conv(x, filters, use_bias=use_bias, name=f"{name}_conv_1")
        y = keras.layers.ReLU(name=f"{name}_activation")(normalise(y, f"{name}_1_norm"))
        if dropout:
            y = Dropout(0.5, name=f"{name}_dropout")(y)
        y = conv(y, filters, use_bias=use_bias, name=f"{name}_conv_2")
        return keras.layers.Add(name=f"{name}_sum")([x, normalise(y, f"{name}_2_norm")])

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    inputs = SideInputs(side)
    x = first = conv(inputs.concatenated(image), filters, name="first_conv")  # [B, H, W, filters]
    for block in range(1, blocks + 1):
        x = residual_block(x, f"block_{block}")
    x = conv(x, filters, name="trunk_conv")
    x = keras.layers.Add(name="trunk_sum")([first, x])
    for level in range(1, doublings + 1):
        x = conv(x, 4 * filters, name=f"up_{level}_conv")
        x = PixelShuffle(name=f"up_{level}_shuffle")(x)  # [B, 2**level H, 2**level W, filters]
        x = keras.layers.ReLU(name=f"up_{level}_activation")(x)
    dtype = layers.variable_dtype()  # bfloat16 would leave images 8 bits
    if input_channels != output_channels:
        x = conv(x, output_channels, dtype=dtype, name="last_conv")
    else:
        x = conv(x, output_channels, dtype=dtype, kernel_initializer="zeros", name="last_conv")
        base = Enlarge(factor, dtype=dtype, name="base")(image) if factor > 1 else image
        x = keras.layers.Add(dtype=dtype, name="sum")([base, x])
    return keras.Model(inputs.with_image(image), x, name=name)
