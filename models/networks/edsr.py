"""Residual networks at the input's resolution: restoration, and enlargement by 2, 4, 8, ...

The trunk of SRResNet (Ledig et al., arXiv 1609.04802) with batch norm, or without norm that of EDSR (Lim et
al., arXiv 1707.02921), which keeps the contrast of each picture.
"""

import keras
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from models.networks import layers
from models.networks.conditioning import SideInputs, SideShapes


@keras.saving.register_keras_serializable(package="gantry")
class PixelShuffle(keras.layers.Layer):
    """Channels become pixels: [B, H, W, 4 C] -> [B, 2 H, 2 W, C] (Shi et al., arXiv 1609.05158)."""

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels // 4)

    def call(self, x):
        return tf.nn.depth_to_space(x, 2)


@keras.saving.register_keras_serializable(package="gantry")
class Enlarge(keras.layers.Layer):
    """Bicubic enlargement: [B, H, W, C] -> [B, factor H, factor W, C]; see `data.imaging.enlarge`."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and self.factor * height, width and self.factor * width, channels)

    def call(self, x):
        height, width = tf.unstack(tf.shape(x)[1:3] * self.factor)
        return imaging.enlarge(x, height=height, width=width)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def edsr(
    *,
    name,
    input_channels,
    output_channels,
    blocks,
    factor=1,
    filters=64,
    norm="none",
    dropout=False,
    inference_norm="batch_statistics",
    side=SideShapes(),  # noqa: B008, frozen
):
    """`blocks` residual blocks at the input's size, then one pixel shuffle for each doubling.

    Input [B, H, W, input_channels] in [-1, 1], any H and W; output [B, factor H, factor W, output_channels],
    in the policy's variable dtype. Where the channels agree the network adds to its input, enlarged, so that
    it begins near the bicubic picture. There is no tanh, which would bend that: outputs reach beyond [-1, 1]
    a little. `dropout` is 0.5 in the middle of every block. With `side` the input is a list, as of
    `SideInformation.beside`.

    Raises:
      ConfigurationError: `factor` is no power of 2.
    """
    doublings = factor.bit_length() - 1
    if factor < 1 or 2**doublings != factor:
        raise ConfigurationError(
            f"a network that enlarges {factor} times: the factor must be 1, 2, 4, 8, ..."
        )
    use_bias = layers.has_bias(norm)

    def conv(x, width, *, name, **kwargs):
        initial = {"kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")}
        return layers.Conv(width, 3, padding=1, name=name, **(initial | kwargs))(x)

    def normalize(x, name):
        return inputs.modulated(layers.normalize(x, norm, inference_norm=inference_norm, name=name), name)

    def residual_block(x, name):
        """[B, H, W, filters] -> the same shape."""
        y = conv(x, filters, use_bias=use_bias, name=f"{name}_conv_1")
        y = keras.layers.ReLU(name=f"{name}_activation")(normalize(y, f"{name}_1_norm"))
        if dropout:
            y = keras.layers.Dropout(0.5, name=f"{name}_dropout")(y)
        y = conv(y, filters, use_bias=use_bias, name=f"{name}_conv_2")
        return keras.layers.Add(name=f"{name}_sum")([x, normalize(y, f"{name}_2_norm")])

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
    dtype = layers.variable_dtype()  # in bfloat16 pictures would keep 8 bits
    if input_channels != output_channels:
        x = conv(x, output_channels, dtype=dtype, name="last_conv")
    else:
        x = conv(x, output_channels, dtype=dtype, kernel_initializer="zeros", name="last_conv")
        base = Enlarge(factor, dtype=dtype, name="base")(image) if factor > 1 else image
        x = keras.layers.Add(dtype=dtype, name="sum")([base, x])
    return keras.Model(inputs.with_image(image), x, name=name)
