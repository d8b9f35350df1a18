"""The U-Net generator of pix2pix (Isola et al., 2017, section 6.1.1)."""

from __future__ import annotations

from typing import Any

import keras

from models.networks import layers, norms
from models.networks.conditioning import NO_SIDE_INPUTS, SideInputs, SideShapes
from models.networks.dropout import Dropout


def unet(
    *,
    name: str,
    input_channels: int,
    output_channels: int,
    downsamplings: int,
    filters: int = 64,
    norm: str = "batch",
    dropout: bool = True,
    inference_norm: str = "batch_statistics",
    side: SideShapes = NO_SIDE_INPUTS,
) -> keras.Model:
    """Builds a U-Net.

    Args:
      name: of the model.
      input_channels: of the images.
      output_channels: of the outputs.
      downsamplings: number of levels; 7 and 8 give the reference's unet_128 and unet_256.
      filters: channels of the first layer; those of the other layers are multiples of it.
      norm: one of `norms.NORMS`.
      dropout: whether the inner downsamplings - 5 blocks with 8 * filters channels have a dropout of 0.5.
      inference_norm: one of `norms.INFERENCE_NORMS`.
      side: sizes of additional inputs.

    Returns:
      A model from [B, H, W, input_channels] in [-1, 1], H and W multiples of 2**downsamplings, to
      [B, H, W, output_channels] in [-1, 1] (tanh) in the policy's variable dtype. With `side` the input is a
      list; see `SideInformation.network_inputs`.
    """
    widths = [filters * min(2**level, 8) for level in range(downsamplings)]
    use_bias = norms.has_bias(norm)

    def down(x: keras.KerasTensor, level: int) -> keras.KerasTensor:
        """[B, H, W, C] -> [B, H/2, W/2, widths[level - 1]]."""
        geometry: dict[str, Any] = {"kernel": 4, "stride": 2, "padding": 1, "use_bias": use_bias}
        return layers.Conv(widths[level - 1], **geometry, name=f"down_{level}_conv")(x)

    def normalise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return inputs.modulated(norms.normalise(x, norm, inference_norm=inference_norm, name=name), name)

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    inputs = SideInputs(side)
    x = down(inputs.concatenated(image), 1)  # [B, H/2, W/2, filters]
    skips = [x]
    for level in range(2, downsamplings + 1):
        # Before the activation and not in the skip connection, as in BicycleGAN.
        x = inputs.concatenated_deeper(x, f"down_{level}")
        x = keras.layers.LeakyReLU(0.2, name=f"down_{level}_activation")(x)
        x = down(x, level)  # [B, H/2**level, W/2**level, widths[level - 1]]
        # The innermost activation may be 1x1: a norm over it would leave zeros.
        if level < downsamplings:
            x = normalise(x, f"down_{level}_norm")
            skips.append(x)

    for level in range(downsamplings, 1, -1):
        x = keras.layers.ReLU(name=f"up_{level}_activation")(x)
        width = widths[level - 2]
        x = layers.ConvTranspose(width, 4, use_bias=use_bias, name=f"up_{level}_conv")(x)
        x = normalise(x, f"up_{level}_norm")  # [B, H/2**(level-1), W/2**(level-1), width]
        if dropout and 5 <= level < downsamplings:
            x = Dropout(0.5, name=f"up_{level}_dropout")(x)
        x = keras.layers.Concatenate(name=f"up_{level}_skip")([skips.pop(), x])  # 2 width

    x = keras.layers.ReLU(name="up_1_activation")(x)
    x = layers.ConvTranspose(output_channels, 4, name="up_1_conv")(x)  # [B, H, W, output_channels]
    # In bfloat16 the tanh would leave 8 bits for images with 256 levels.
    x = keras.layers.Activation("tanh", dtype=layers.variable_dtype(), name="translated")(x)
    return keras.Model(inputs.with_image(image), x, name=name)
