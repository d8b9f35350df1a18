"""pix2pix: paired image-to-image translation (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import tensorflow as tf

from engine.task import Adam, ConfigurationError, Phase, Step, Task
from models.losses import gan_loss, l1
from models.networks import build_generator, check_image_size
from models.patchgan import check_patchgan_size, patchgan


class Pix2Pix(Task):
    """A generator that also stays close to the target, and a discriminator of (input, output) pairs.

    The fake is made once a step; the discriminator is updated on it first, then the generator against
    the updated discriminator, as the reference does.

    Args:
      generator: name of the generator network, such as "unet_256"; see `models.networks`.
      generator_filters, discriminator_filters: channels of the first layer; all others follow.
      norm: "batch" (over the global batch of all replicas), "instance" or "none".
      dropout: dropout in the generator, the paper's only source of noise.
      inference_norm: what batch norm uses outside training: "batch_statistics" of each single picture,
        as published, or "moving_statistics".
      gan_loss: "bce" or "lsgan".
      l1_weight: weight of the L1 term against the adversarial one.
      generator_optimizer, discriminator_optimizer: their settings.
    """

    def __init__(
        self,
        *,
        generator: str = "unet_256",
        generator_filters: int = 64,
        discriminator_filters: int = 64,
        norm: str = "batch",
        dropout: bool = True,
        inference_norm: str = "batch_statistics",
        gan_loss: str = "bce",
        l1_weight: float = 100.0,
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        if gan_loss not in ("bce", "lsgan"):
            raise ConfigurationError(f"Pix2Pix.gan_loss = {gan_loss!r}: unknown; use 'bce' or 'lsgan'")
        self.generator = generator
        self.generator_filters = generator_filters
        self.discriminator_filters = discriminator_filters
        self.norm = norm
        self.dropout = dropout
        self.inference_norm = inference_norm
        self.gan_loss = gan_loss
        self.l1_weight = l1_weight
        self.optimizers = {
            "generator": generator_optimizer,
            "discriminator": discriminator_optimizer,
        }

    def networks(self, example):
        height, width, input_channels = example["input"].shape
        output_channels = example["target"].shape[-1]
        try:
            check_image_size(self.generator, height, width)
            check_patchgan_size(height, width)
            generator = build_generator(
                self.generator,
                name="generator",
                input_channels=input_channels,
                output_channels=output_channels,
                filters=self.generator_filters,
                norm=self.norm,
                dropout=self.dropout,
                inference_norm=self.inference_norm,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        discriminator = patchgan(
            name="discriminator",
            input_channels=input_channels + output_channels,
            filters=self.discriminator_filters,
            norm=self.norm,
        )
        return {"generator": generator, "discriminator": discriminator}

    def phases(self):
        return (
            Phase(
                name="discriminator",
                loss=self.discriminator_loss,
                updates=("discriminator",),
                optimizer="discriminator",
            ),
            Phase(
                name="generator",
                loss=self.generator_loss,
                updates=("generator",),
                optimizer="generator",
            ),
        )

    def forward(self, step: Step):
        return {"fake": step.networks["generator"](step.batch["input"], training=True)}

    def discriminator_loss(self, step: Step):
        """Half the mean of both terms, which slows the discriminator against the generator."""
        fake = self._judge(step, step.outputs["fake"])
        real = self._judge(step, step.batch["target"])  # a pass, and batch statistics, of its own
        return {
            "fake": 0.5 * gan_loss(fake, real=False, kind=self.gan_loss),
            "real": 0.5 * gan_loss(real, real=True, kind=self.gan_loss),
        }

    def generator_loss(self, step: Step):
        fake = step.outputs["fake"]
        return {
            "gan": gan_loss(self._judge(step, fake), real=True, kind=self.gan_loss),
            "l1": self.l1_weight * l1(fake, step.batch["target"]),
        }

    def translate(self, networks, batch):
        return networks["generator"](batch["input"], training=False)

    def _judge(self, step: Step, pictures: tf.Tensor) -> tf.Tensor:
        pair = tf.concat([step.batch["input"], pictures], axis=-1)  # [B, H, W, Cin + Cout]
        return step.networks["discriminator"](pair, training=True)
