"""Super-resolution: translates images to images that are larger by a whole factor."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.optimizers import Adam, Optimizer
from models.fidelity import Fidelity
from models.networks.edsr import edsr
from models.pix2pix import Pix2Pix
from models.regularisation import Regularisation


class SuperResolution(Pix2Pix):
    """A residual generator that enlarges images, and a discriminator of large images.

    Similar to SRGAN (Ledig et al., arXiv 1609.04802), but with L1 and SSIM in place of its perceptual loss.
    The factor follows from the sizes of inputs and targets (see `SingleImages.downscale`).

    Args:
      blocks: residual blocks of the generator; see `models.networks.edsr`.
      generator_filters: channels of all its layers.
      norm: of both networks; with "none" the generator is that of EDSR, with "batch" that of SRResNet.
      discriminator_filters, inference_norm, gan_loss, regularisation, l1_weight, fidelity,
        feature_matching_weight, top_k, ema_decay, generator_optimizer, discriminator_optimizer: see
        `models.pix2pix.Pix2Pix`.
    """

    def __init__(
        self,
        *,
        blocks: int = 16,
        generator_filters: int = 64,
        discriminator_filters: int = 64,
        norm: str = "none",
        inference_norm: str = "batch_statistics",
        gan_loss: str = "bce",
        regularisation: Regularisation = Regularisation(),  # noqa: B008, frozen
        l1_weight: float = 100.0,
        fidelity: Fidelity = Fidelity(ssim=10.0),  # noqa: B008, frozen
        feature_matching_weight: float = 0.0,
        top_k: float = 1.0,
        ema_decay: float | None = None,
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
        super().__init__(
            generator="edsr",
            generator_filters=generator_filters,
            discriminator_filters=discriminator_filters,
            norm=norm,
            dropout=False,
            inference_norm=inference_norm,
            gan_loss=gan_loss,
            regularisation=regularisation,
            l1_weight=l1_weight,
            fidelity=fidelity,
            feature_matching_weight=feature_matching_weight,
            top_k=top_k,
            conditional=False,
            ema_decay=ema_decay,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
        )
        self.blocks = blocks

    def build_generator(self, example: Mapping[str, tf.TensorSpec]) -> keras.Model:
        """Builds the generator for the factor between inputs and targets.

        Args:
          example: shapes of the features of one example: images [H, W, C].

        Raises:
          ConfigurationError: targets are not larger by a whole factor that the generator supports.
        """
        small, large = example["input"].shape, example["target"].shape
        factor = large[0] // small[0]
        if tuple(large[:2]) != (factor * small[0], factor * small[1]):
            raise ConfigurationError(
                f"super-resolution: targets of {large[0]}x{large[1]} pixels are no whole number of times as "
                f"large as inputs of {small[0]}x{small[1]}; set SingleImages.downscale to the factor"
            )
        return edsr(
            name="generator",
            input_channels=small[-1],
            output_channels=large[-1],
            blocks=self.blocks,
            factor=factor,
            filters=self.generator_filters,
            norm=self.norm,
            inference_norm=self.inference_norm,
        )
