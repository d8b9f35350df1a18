"""The PatchGAN discriminator (Isola et al., 2017, section 3.2.2)."""

from __future__ import annotations

from typing import Any

import keras

from engine.errors import ConfigurationError
from models.networks.conditioning import NO_SIDE_INPUTS, SideInputs, SideShapes
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import has_bias, normalise
from models.networks.spectral_norm import SpectralNorm

ACTIVATIONS = ("activation_0", "activation_1", "activation_2", "activation_3")
"""The layers of `patchgan` with `layers=3` whose activations feature matching compares."""


def patchgan(
    *,
    name: str,
    input_channels: int,
    filters: int = 64,
    layers: int = 3,
    norm: str = "batch",
    spectral_norm: bool = False,
    side: SideShapes = NO_SIDE_INPUTS,
) -> keras.Model:
    """Builds a convolutional discriminator of patches.

    Args:
      name: of the model.
      input_channels: of the images. A conditional discriminator takes input and output concatenated.
      filters: channels of the first layer; those of the other layers are multiples of it.
      layers: number of convolutions between the first and the last; with 3 each logit sees 70x70 pixels.
      norm: one of `models.networks.norms.NORMS`.
      spectral_norm: whether to divide the kernel of each convolution by its largest singular value.
      side: sizes of additional inputs.

    Returns:
      A model from [B, H, W, input_channels] in [-1, 1], H and W at least 3 * 2**layers, to logits without a
      sigmoid in the policy's variable dtype: [B, floor(H/8) - 2, floor(W/8) - 2, 1] with `layers=3`, which is
      30x30 for 256x256. With `side` the input is a list; see `SideInformation.network_inputs`.
    """

    def conv(*args: Any, **kwargs: Any) -> keras.layers.Layer:
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
        geometry: dict[str, Any] = {"kernel": 4, "stride": 2 if layer < layers else 1, "padding": 1}
        x = conv(width, **geometry, use_bias=use_bias, name=f"conv_{layer}")(x)
        # Each layer halves the size, except the last one, which removes a row and a column.
        x = normalise(x, norm, name=f"norm_{layer}")  # [B, H/2**(layer+1), ..., width]
        x = inputs.modulated(x, f"norm_{layer}")
        x = keras.layers.LeakyReLU(0.2, name=f"activation_{layer}")(x)
    # In the variables' dtype: bfloat16 would round the logits to 8 bits.
    x = conv(1, 4, padding=1, dtype=variable_dtype(), name="logits")(x)
    return keras.Model(inputs.with_image(image), x, name=name)


def check_patchgan_size(height: int, width: int, *, layers: int = 3) -> None:
    """Checks that images are large enough for one patch.

    Args:
      height: of the images, in pixels.
      width: of the images, in pixels.
      layers: those of `patchgan`.

    Raises:
      ConfigurationError: they are too small.
    """
    smallest = 3 * 2**layers
    if min(height, width) < smallest:
        raise ConfigurationError(
            f"PatchGAN: does not take images of {height}x{width} pixels (height x width), only of at least "
            f"{smallest}x{smallest}; crop or resize them to that"
        )
