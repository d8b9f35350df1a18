"""The residual generator of CycleGAN (Johnson et al., 2016; Zhu et al., 2017, appendix 7.2)."""

import keras

from engine.errors import ConfigurationError
from models.networks import layers
from models.networks.conditioning import SideInputs, SideShapes


def resnet(
    *,
    name,
    input_channels,
    output_channels,
    blocks,
    filters=64,
    norm="instance",
    dropout=False,
    inference_norm="batch_statistics",
    side=SideShapes(),  # noqa: B008, frozen
):
    """Two downsamplings, `blocks` residual blocks (6 or 9 in the reference), two upsamplings.

    Input [B, H, W, input_channels] in [-1, 1], H and W multiples of 4 and at least 8; output
    [B, H, W, output_channels] in [-1, 1] (tanh), in the policy's variable dtype. `dropout` is 0.5
    in the middle of every block. With `side` the input is a list, as of `SideInformation.beside`; a
    vector is not concatenated where there is a norm (ConfigurationError).
    """
    if side.tiled and norm != "none":
        # Reflection padding leaves a constant channel constant, so it is a constant after the convolution.
        raise ConfigurationError(
            f"{name}: the {norm} norm after the first convolution takes out what a vector concatenated to "
            "the picture adds; set SideInformation.vector to 'film', or choose a U-Net"
        )
    use_bias = layers.has_bias(norm)

    def conv(x, width, kernel, *, name, **kwargs):
        return layers.Conv(width, kernel, use_bias=use_bias, name=name, **kwargs)(x)

    def normalize(x, name):
        x = layers.normalize(x, norm, inference_norm=inference_norm, name=f"{name}_norm")
        return inputs.modulated(x, name)

    def norm_relu(x, name):
        return keras.layers.ReLU(name=f"{name}_activation")(normalize(x, name))

    def residual_block(x, name):
        """[B, H, W, C] -> the same shape; nothing is applied to the sum."""
        y = layers.ReflectionPadding2D(1, name=f"{name}_pad_1")(x)
        y = norm_relu(conv(y, x.shape[-1], 3, name=f"{name}_conv_1"), f"{name}_1")
        if dropout:
            y = keras.layers.Dropout(0.5, name=f"{name}_dropout")(y)
        y = layers.ReflectionPadding2D(1, name=f"{name}_pad_2")(y)
        y = normalize(conv(y, x.shape[-1], 3, name=f"{name}_conv_2"), f"{name}_2")
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
    # In bfloat16 the tanh would leave 8 bits for a picture of 256 levels.
    x = keras.layers.Activation("tanh", dtype=layers.variable_dtype(), name="translated")(x)
    return keras.Model(inputs.with_image(image), x, name=name)
