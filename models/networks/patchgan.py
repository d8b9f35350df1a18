"""Discriminators that judge patches (Isola et al., 2017, section 3.2.2) and single pixels."""

import keras

from engine.errors import ConfigurationError
from models.networks.conditioning import SideInputs, SideShapes
from models.networks.layers import Conv, has_bias, image_input, normalize, variable_dtype
from models.networks.spectral_norm import SpectralNorm

ACTIVATIONS = ("activation_0", "activation_1", "activation_2", "activation_3")
"""Layers of `patchgan` with `layers=3` whose activations feature matching compares."""


def patchgan(
    *,
    name,
    input_channels,
    filters=64,
    layers=3,
    norm="batch",
    spectral_norm=False,
    side=SideShapes(),  # noqa: B008, frozen
):
    """A convolutional discriminator; with `layers=3` every logit sees a patch of 70x70 pixels.

    Input [B, H, W, input_channels] in [-1, 1]; a conditional one takes both pictures concatenated
    over the channels. Output: logits, no sigmoid, in the policy's variable dtype, at layers=3
    [B, floor(H/8) - 2, floor(W/8) - 2, 1]: 30x30 for 256x256; H and W at least 2**layers * 3.
    `spectral_norm` divides the kernel of every convolution by its largest singular value. With `side` the
    input is a list, as of `SideInformation.beside`.
    """

    def conv(*args, **kwargs):
        layer = Conv(*args, **kwargs)
        return SpectralNorm(layer, name=layer.name) if spectral_norm else layer

    use_bias = has_bias(norm)
    image = image_input(input_channels)  # [B, H, W, input_channels]
    inputs = SideInputs(side)
    first = conv(filters, 4, stride=2, padding=1, name="conv_0")
    x = first(inputs.concatenated(image))  # [B, H/2, W/2, filters]
    x = keras.layers.LeakyReLU(0.2, name="activation_0")(x)
    for layer in range(1, layers + 1):
        width = filters * min(2**layer, 8)
        geometry = {"kernel": 4, "stride": 2 if layer < layers else 1, "padding": 1}
        x = conv(width, **geometry, use_bias=use_bias, name=f"conv_{layer}")(x)
        # Every layer halves the size but the last one, which takes a pixel off.
        x = normalize(x, norm, name=f"norm_{layer}")  # [B, H/2**(layer+1), ..., width]
        x = inputs.modulated(x, f"norm_{layer}")
        x = keras.layers.LeakyReLU(0.2, name=f"activation_{layer}")(x)
    # The logits are convolved in the variables' dtype: bfloat16 would round them to 8 bits.
    x = conv(1, 4, padding=1, dtype=variable_dtype(), name="logits")(x)
    return keras.Model(inputs.with_image(image), x, name=name)


def check_patchgan_size(height, width, *, layers=3):
    """Raises ConfigurationError with the remedy if pictures of [height, width] pixels leave no patch."""
    smallest = 3 * 2**layers
    if min(height, width) < smallest:
        raise ConfigurationError(
            f"a discriminator of patches does not take pictures of {height}x{width} pixels (height x width): "
            f"both must be at least {smallest}; crop or resize them to that"
        )


def pixel_discriminator(*, name, input_channels, filters=64, norm="batch"):
    """Judges every pixel by itself: [B, H, W, input_channels] in [-1, 1] -> logits [B, H, W, 1]."""
    use_bias = has_bias(norm)
    image = image_input(input_channels)  # [B, H, W, input_channels]
    x = Conv(filters, 1, name="conv_0")(image)  # [B, H, W, filters]
    x = keras.layers.LeakyReLU(0.2, name="activation_0")(x)
    x = Conv(2 * filters, 1, use_bias=use_bias, name="conv_1")(x)  # [B, H, W, 2 filters]
    x = normalize(x, norm, name="norm_1")
    x = keras.layers.LeakyReLU(0.2, name="activation_1")(x)
    # The reference leaves out this bias too, though no norm follows.
    x = Conv(1, 1, use_bias=use_bias, dtype=variable_dtype(), name="logits")(x)  # [B, H, W, 1]
    return keras.Model(image, x, name=name)
