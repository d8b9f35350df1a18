"""The U-Net generator of pix2pix (Isola et al., 2017, section 6.1.1)."""

import keras

from models.networks import layers
from models.networks.conditioning import SideInputs, SideShapes


def unet(
    *,
    name,
    input_channels,
    output_channels,
    downsamplings,
    filters=64,
    norm="batch",
    dropout=True,
    inference_norm="batch_statistics",
    side=SideShapes(),  # noqa: B008, frozen
):
    """A U-Net with `downsamplings` levels: 7 and 8 are the reference's unet_128, unet_256.

    Input [B, H, W, input_channels] in [-1, 1], H and W multiples of 2**downsamplings; output
    [B, H, W, output_channels] in [-1, 1] (tanh), in the policy's variable dtype. `dropout` is 0.5
    in the downsamplings - 5 inner blocks of 8 * filters channels, if there are any.
    With `side` the input is a list, as of `SideInformation.beside`.
    """
    widths = [filters * min(2**level, 8) for level in range(downsamplings)]
    use_bias = layers.has_bias(norm)

    def down(x, level):
        """[B, H, W, C] -> [B, H/2, W/2, widths[level - 1]]."""
        geometry = {"kernel": 4, "stride": 2, "padding": 1, "use_bias": use_bias}
        return layers.Conv(widths[level - 1], **geometry, name=f"down_{level}_conv")(x)

    def normalize(x, name):
        return inputs.modulated(layers.normalize(x, norm, inference_norm=inference_norm, name=name), name)

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    inputs = SideInputs(side)
    x = down(inputs.concatenated(image), 1)  # [B, H/2, W/2, filters]
    skips = [x]
    for level in range(2, downsamplings + 1):
        # Before the activation and beside the skip, as in BicycleGAN.
        x = inputs.concatenated_deeper(x, f"down_{level}")
        x = keras.layers.LeakyReLU(0.2, name=f"down_{level}_activation")(x)
        x = down(x, level)  # [B, H/2**level, W/2**level, widths[level - 1]]
        # The innermost picture may be 1x1: a norm over it would leave nothing.
        if level < downsamplings:
            x = normalize(x, f"down_{level}_norm")
            skips.append(x)

    for level in range(downsamplings, 1, -1):
        x = keras.layers.ReLU(name=f"up_{level}_activation")(x)
        width = widths[level - 2]
        x = layers.ConvTranspose(width, 4, use_bias=use_bias, name=f"up_{level}_conv")(x)
        x = normalize(x, f"up_{level}_norm")  # [B, H/2**(level-1), W/2**(level-1), width]
        if dropout and 5 <= level < downsamplings:
            x = keras.layers.Dropout(0.5, name=f"up_{level}_dropout")(x)
        x = keras.layers.Concatenate(name=f"up_{level}_skip")([skips.pop(), x])  # 2 width

    x = keras.layers.ReLU(name="up_1_activation")(x)
    x = layers.ConvTranspose(output_channels, 4, name="up_1_conv")(x)  # [B, H, W, output_channels]
    # In bfloat16 the tanh would leave 8 bits for a picture of 256 levels.
    x = keras.layers.Activation("tanh", dtype=layers.variable_dtype(), name="translated")(x)
    return keras.Model(inputs.with_image(image), x, name=name)
