"""The networks of BicycleGAN: a U-Net whose second input is a latent code, and an encoder of images to codes.

Source: Zhu et al., arXiv 1711.11586; architecture, widths and initial weights are those of the authors' code
(junyanz/BicycleGAN).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras

from engine.errors import ConfigurationError, check_at_least
from models.networks import layers, norms
from models.networks.conditioning import SideShapes
from models.networks.generators import build_generator, check_image_size

GENERATORS = ("unet_32", "unet_64", "unet_128", "unet_256")
"""The networks of `models.networks.generators.GENERATORS` that take a code."""

ENCODERS = {f"resnet_{2 ** (levels + 3)}": levels for levels in range(2, 6)}
"""Name -> number of downsamplings; the name has the image size in pixels that they reduce to 8x8."""

LATENT_AT = ("all", "input")
"""Where the generator gets the code: at every downsampling, or only at its input."""


def resnet_encoder(
    *,
    name: str,
    input_channels: int,
    latent_size: int,
    downsamplings: int,
    filters: int = 64,
    norm: str = "instance",
    inference_norm: str = "batch_statistics",
) -> keras.Model:
    """Builds the encoder of images to codes.

    A convolution and `downsamplings - 1` residual blocks halve the size; then follow the mean over all pixels
    and two linear layers. (The authors average windows of 8x8, which is all that is left of images of their
    training size; the mean over all pixels allows any size.)

    Args:
      name: of the model.
      input_channels: channels of the images.
      latent_size: numbers of a code.
      downsamplings: how often the size is halved; images have at least 2**downsamplings pixels a side.
      filters: channels of the first layer; the other layers scale with it.
      norm: "batch", "instance" or "none".
      inference_norm: what batch norm uses outside training, "batch_statistics" or "moving_statistics".

    Returns:
      A model from images [B, H, W, input_channels] in [-1, 1] to mean and log variance of their codes, both
      [B, latent_size].
    """

    def activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = norms.normalise(x, norm, inference_norm=inference_norm, name=f"{name}_norm")
        return keras.layers.LeakyReLU(0.2, name=f"{name}_activation")(x)

    def residual_block(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
        """[B, H, W, C] -> [B, H/2, W/2, width], with the activation before each convolution."""
        y = activate(x, f"{name}_1")
        y = layers.Conv(x.shape[-1], 3, padding=1, use_bias=norms.has_bias(norm), name=f"{name}_conv_1")(y)
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
    # The code has the dtype of the variables: bfloat16 would round it to 8 bits.
    dtype = layers.variable_dtype()
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)  # [B, C]
    codes = [keras.layers.Dense(latent_size, dtype=dtype, name=part)(x) for part in ("mean", "log_variance")]
    return keras.Model(image, codes, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentNetworks:
    """Settings of a generator with a code as a second input, and of the encoder.

    Attributes:
      generator: one of GENERATORS.
      encoder: one of ENCODERS.
      latent_size: numbers of a code.
      latent_at: where the code is concatenated: "all" downsamplings or the "input" only; see
        `models.networks.conditioning.SideShapes.tiled_at`.
      generator_filters: channels of the generator's first layer; the other layers scale with it.
      encoder_filters: channels of the encoder's first layer; the other layers scale with it.
      norm: of both networks; see `models.pix2pix.Pix2Pix`.
      dropout: whether the generator has dropout.
      inference_norm: of both networks; see `models.pix2pix.Pix2Pix`.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
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

    def __post_init__(self) -> None:
        for name, known in (("generator", GENERATORS), ("encoder", ENCODERS), ("latent_at", LATENT_AT)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigurationError(
                    f"LatentNetworks.{name} = {value!r}: unknown; use one of {', '.join(known)}"
                )
        for name in ("latent_size", "generator_filters", "encoder_filters"):
            check_at_least(1, of="LatentNetworks", **{name: getattr(self, name)})

    def build(self, input_shape: Sequence[int], target_shape: Sequence[int]) -> dict[str, keras.Model]:
        """Builds `generator` and `encoder`.

        Args:
          input_shape: [H, W, C] of the generator's input images.
          target_shape: [H, W, C] of the generator's outputs, which the encoder takes.

        Returns:
          The networks by name; "generator" takes images and codes [B, latent_size].

        Raises:
          ConfigurationError: the networks cannot take images of that size.
        """
        check_image_size(self.generator, *target_shape[:2], among=GENERATORS)
        generator = build_generator(
            self.generator,
            name="generator",
            input_channels=input_shape[-1],
            output_channels=target_shape[-1],
            filters=self.generator_filters,
            norm=self.norm,
            dropout=self.dropout,
            inference_norm=self.inference_norm,
            side=SideShapes(tiled=self.latent_size, tiled_at=self.latent_at),
        )
        encoder = resnet_encoder(
            name="encoder",
            input_channels=target_shape[-1],
            latent_size=self.latent_size,
            downsamplings=ENCODERS[self.encoder],
            filters=self.encoder_filters,
            norm=self.norm,
            inference_norm=self.inference_norm,
        )
        return {"generator": generator, "encoder": encoder}
