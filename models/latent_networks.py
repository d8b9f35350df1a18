"""The networks of BicycleGAN: a U-Net that takes a latent code, and the encoder that finds a picture's code.

Source: Zhu et al., arXiv 1711.11586; geometry, widths and initial weights are those of the authors' code
(junyanz/BicycleGAN).
"""

import dataclasses
from collections.abc import Sequence

import keras

from engine.errors import ConfigurationError, check_at_least
from models.networks import layers
from models.networks.conditioning import SideShapes
from models.networks.generators import build_generator, check_image_size

GENERATORS = ("unet_32", "unet_64", "unet_128", "unet_256")
"""Those of `models.networks.generators.GENERATORS` that take a code."""

ENCODERS = {f"resnet_{2 ** (levels + 3)}": levels for levels in range(2, 6)}
"""Downsamplings by name; the name is the size of pictures (pixels) that end as 8x8."""

LATENT_AT = ("all", "input")


def resnet_encoder(
    *,
    name,
    input_channels,
    latent_size,
    downsamplings,
    filters=64,
    norm="instance",
    inference_norm="batch_statistics",
):
    """A picture [B, H, W, input_channels] in [-1, 1] -> mean and log variance of its code, [B, Z] each.

    A convolution and `downsamplings - 1` residual blocks halve the size; the mean over what is left goes
    through two linear layers. H and W at least 2**downsamplings, as all that the U-Net takes are. (The
    authors pool windows of 8x8, all there is of pictures of the size they train on; so this takes any.)
    """

    def activate(x, name):
        x = layers.normalise(x, norm, inference_norm=inference_norm, name=f"{name}_norm")
        return keras.layers.LeakyReLU(0.2, name=f"{name}_activation")(x)

    def residual_block(x, width, name):
        """[B, H, W, C] -> [B, H/2, W/2, width], activated before each convolution."""
        y = activate(x, f"{name}_1")
        y = layers.Conv(x.shape[-1], 3, padding=1, use_bias=layers.has_bias(norm), name=f"{name}_conv_1")(y)
        y = activate(y, f"{name}_2")
        y = layers.Conv(width, 3, padding=1, name=f"{name}_conv_2")(y)
        y = keras.layers.AveragePooling2D(2, name=f"{name}_pool")(y)
        shortcut = keras.layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Conv(width, 1, name=f"{name}_shortcut_conv")(shortcut)
        return keras.layers.Add(name=f"{name}_sum")([y, shortcut])

    image = layers.image_input(input_channels)  # [B, H, W, input_channels]
    x = layers.Conv(filters, 4, stride=2, padding=1, name="first_conv")(image)  # [B, H/2, W/2, filters]
    for block in range(1, downsamplings):
        x = residual_block(x, filters * min(block + 1, 4), f"block_{block}")
    x = keras.layers.LeakyReLU(0.2, name="last_activation")(x)
    # The code is computed in the variables' dtype: bfloat16 would round it to 8 bits.
    dtype = layers.variable_dtype()
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)  # [B, C]
    codes = [keras.layers.Dense(latent_size, dtype=dtype, name=part)(x) for part in ("mean", "log_variance")]
    return keras.Model(image, codes, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentNetworks:
    """Settings of a generator that takes a code, and of the encoder that finds it.

    Args:
      generator, encoder: of GENERATORS and ENCODERS.
      latent_size: numbers of a code.
      latent_at: where the code is concatenated, as of `models.networks.conditioning.SideShapes.tiled_at`.
      generator_filters, encoder_filters: channels of the first layer; all others follow.
      norm, dropout, inference_norm: as of `models.pix2pix.Pix2Pix`; dropout is the generator's.
    """

    generator: str = "unet_256"
    encoder: str = "resnet_256"
    latent_size: int = 8
    latent_at: str = "all"
    generator_filters: int = 64
    encoder_filters: int = 64
    norm: str = "instance"
    dropout: bool = False
    inference_norm: str = "batch_statistics"

    def __post_init__(self):
        for name, known in (("generator", GENERATORS), ("encoder", ENCODERS), ("latent_at", LATENT_AT)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigurationError(
                    f"LatentNetworks.{name} = {value!r}: unknown; use one of {', '.join(known)}"
                )
        for name in ("latent_size", "generator_filters", "encoder_filters"):
            check_at_least(1, of="LatentNetworks", **{name: getattr(self, name)})

    def build(self, input_shape: Sequence[int], target_shape: Sequence[int]) -> dict[str, keras.Model]:
        """ "generator", of pictures and codes [B, latent_size], and "encoder" for pictures [H, W, C].

        Raises:
          ConfigurationError: pictures of a size that they do not take.
        """
        check_image_size(self.generator, *target_shape[:2], among=GENERATORS)
        shared = {"norm": self.norm, "inference_norm": self.inference_norm}
        generator = build_generator(
            self.generator,
            name="generator",
            input_channels=input_shape[-1],
            output_channels=target_shape[-1],
            filters=self.generator_filters,
            dropout=self.dropout,
            side=SideShapes(tiled=self.latent_size, tiled_at=self.latent_at),
            **shared,
        )
        encoder = resnet_encoder(
            name="encoder",
            input_channels=target_shape[-1],
            latent_size=self.latent_size,
            downsamplings=ENCODERS[self.encoder],
            filters=self.encoder_filters,
            **shared,
        )
        return {"generator": generator, "encoder": encoder}
