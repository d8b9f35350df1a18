"""Discriminators that judge patches (Isola et al., 2017, section 3.2.2) and single pixels."""

import keras

from models.layers import conv, has_bias, normalize, variable_dtype


def patchgan(*, name, input_channels, filters=64, layers=3, norm="batch"):
    """A convolutional discriminator; with `layers=3` every logit sees a patch of 70x70 pixels.

    Input [B, H, W, input_channels] in [-1, 1]; a conditional one takes both pictures concatenated
    over the channels. Output: logits, no sigmoid, in the policy's variable dtype, at layers=3
    [B, floor(H/8) - 2, floor(W/8) - 2, 1]: 30x30 for 256x256; H and W at least 2**layers * 3.
    """
    use_bias = has_bias(norm)
    image = keras.Input((None, None, input_channels), name="image")  # [B, H, W, input_channels]
    x = conv(image, filters, kernel=4, stride=2, padding=1, name="conv_0")  # [B, H/2, W/2, filters]
    x = keras.layers.LeakyReLU(0.2, name="activation_0")(x)
    for layer in range(1, layers + 1):
        x = conv(
            x,
            filters * min(2**layer, 8),
            kernel=4,
            stride=2 if layer < layers else 1,  # the last one keeps the size, less one pixel
            padding=1,
            use_bias=use_bias,
            name=f"conv_{layer}",
        )  # [B, H/2**(layer+1), W/2**(layer+1), C], the last [B, H/2**layers - 1, ...]
        x = normalize(x, norm, name=f"norm_{layer}")
        x = keras.layers.LeakyReLU(0.2, name=f"activation_{layer}")(x)
    return keras.Model(image, _logits(x, kernel=4, padding=1, use_bias=True), name=name)


def pixel_discriminator(*, name, input_channels, filters=64, norm="batch"):
    """Judges every pixel by itself: [B, H, W, input_channels] in [-1, 1] -> logits [B, H, W, 1]."""
    use_bias = has_bias(norm)
    image = keras.Input((None, None, input_channels), name="image")  # [B, H, W, input_channels]
    x = conv(image, filters, kernel=1, name="conv_0")
    x = keras.layers.LeakyReLU(0.2, name="activation_0")(x)
    x = conv(x, 2 * filters, kernel=1, use_bias=use_bias, name="conv_1")
    x = normalize(x, norm, name="norm_1")
    x = keras.layers.LeakyReLU(0.2, name="activation_1")(x)
    return keras.Model(image, _logits(x, kernel=1, padding=0, use_bias=use_bias), name=name)


def _logits(x, *, kernel, padding, use_bias):
    """One channel, convolved in the variable dtype: bfloat16 would round logits to 8 bits."""
    return conv(
        x,
        1,
        kernel=kernel,
        padding=padding,
        use_bias=use_bias,
        dtype=variable_dtype(),
        name="logits",
    )
