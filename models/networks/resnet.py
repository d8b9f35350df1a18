"""The residual generator of CycleGAN (Johnson et al., 2016; Zhu et al., 2017, appendix 7.2)."""

from __future__ import annotations

from typing import Any

import keras

from engine.errors import ConfigurationError
from models.networks import layers, norms
from models.networks.conditioning import NO_SIDE_INPUTS, SideInputs, SideShapes
from models.networks.dropout import Dropout


def resnet(
    *,
    name: str,
    input_channels: int,
    output_channels: int,
    blocks: int,
    filters: int = 64,
    norm: str = "instance",
    dropout: bool = False,
    inference_norm: str = "batch_statistics",
    side: SideShapes = NO_SIDE_INPUTS,
) -> keras.Model:
    """Builds two downsamplings, residual blocks and two upsamplings.

    Args:
      name: of the model.
      input_channels: of the images.
      output_channels: of the outputs.
      blocks: number of residual blocks, 6 or 9 in the reference.
      filters: channels of the first layer; those of the other layers are multiples of it.
      norm: one of `norms.NORMS`.
      dropout: whether each block has a dropout of 0.5 in its middle.
      inference_norm: one of `norms.INFERENCE_NORMS`.
      side: sizes of additional inputs; a vector is concatenated only without a norm.

    Returns:
      A model from [B, H, W, input_channels] in [-1, 1], H and W multiples of 4 and at least 8, to
      [B, H, W, output_channels] in [-1, 1] (tanh) in the policy's variable dtype. With `side` the input is a
      list; see `SideInformation.network_inputs`.

    Raises:
      ConfigurationError: a vector is concatenated, and there is a norm.
    """
    if side.tiled and norm != "none":
        # Reflection padding keeps a constant channel constant, so its contribution after the convolution is
        # constant too.
        raise ConfigurationError(
            f"{name}: the {norm} norm after the first convolution removes the contribution of a concatenated "
            "vector; set SideInformation.vector to 'film', or choose a U-Net"
        )
    use_bias = norms.has_bias(norm)

    def conv(x: keras.KerasTensor, width: int, kernel: int, *, name: str, **kwargs: Any) -> keras.KerasTensor:
        return layers.Conv(width, kernel, use_bias=use_bias, name=name, **kwargs)(x)

    def normalise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = norms.normalise(x, norm, inference_norm=inference_norm, name=f"{name}_norm")
        return inputs.modulated(x, name)

    def norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.ReLU(name=f"{name}_activation")(normalise(x, name))

    def residual_block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """[B, H, W, C] -> the same shape; no activation follows the sum."""
        y = layers.ReflectionPadding2D(1, name=f"{name}_pad_1")(x)
        y = norm_relu(conv(y, x.shape[-1], 3, name=f"{name}_conv_1"), f"{name}_1")
        if dropout:
            y = Dropout(0.5, name=f"{name}_dropout")(y)
        y = layers.ReflectionPadding2D(1, name=f"{name}_pad_2")(y)
        y = normalise(conv(y, x.shape[-1], 3, name=f"{name}_conv_2"), f"{name}_2")
        return keras.layers.Add(name=f"{name}_sum")([x, y])

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    inputs = SideInputs(side)
    x = layers.ReflectionPadding2D(3, name="first_pad")(inputs.concatenated(image))  # [B, H + 6, W + 6, ...]
    x = norm_relu(conv(x, filters, 7, name="first_conv"), "first")  # [B, H, W, filters]
    for level in (1, 2):
        x = conv(x, filters * 2**level, 3, stride=2, padding=1, name=f"down_{level}_conv")
        x = norm_relu(x, f"down_{level}")  # [B, H/2**level, W/2**level, filters * 2**level]
    for block in range(1, blocks + 1):
        x = residual_block(x, f"block_{block}")
    for level in (2, 1):
        width = filters * 2 ** (level - 1)
        x = layers.ConvTranspose(width, 3, use_bias=use_bias, name=f"up_{level}_conv")(x)
        x = norm_relu(x, f"up_{level}")  # [B, H/2**(level-1), W/2**(level-1), width]
    x = layers.ReflectionPadding2D(3, name="last_pad")(x)
    x = layers.Conv(output_channels, 7, name="last_conv")(x)  # [B, H, W, output_channels]
    # In bfloat16 the tanh would leave 8 bits for images with 256 levels.
    x = keras.layers.Activation("tanh", dtype=layers.variable_dtype(), name="translated")(x)
    return keras.Model(inputs.with_image(image), x, name=name)
