"""pix2pix: paired image-to-image translation (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import tensorflow as tf

from engine.task import Adam, ConfigurationError, Phase, Step, Task
from models.losses import l1
from models.networks import build_generator, check_image_size
from models.patchgan import check_patchgan_size, patchgan
from models.regularisation import Regularisation
from models.side_information import SideInformation


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
      gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`: "bce", as published, "lsgan", "hinge", "wgan_gp"
        (with its gradient penalty) or "relativistic".
      regularisation: of the discriminator; none by default.
      side_information: what both networks get with each picture; nothing by default.
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
        regularisation: Regularisation = Regularisation(),  # noqa: B008, frozen
        side_information: SideInformation = SideInformation(),  # noqa: B008, frozen
        l1_weight: float = 100.0,
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        regularisation.check(gan_loss=gan_loss, norm=norm)
        self.generator = generator
        self.generator_filters = generator_filters
        self.discriminator_filters = discriminator_filters
        self.norm = norm
        self.dropout = dropout
        self.inference_norm = inference_norm
        self.gan_loss = gan_loss
        self.regularisation = regularisation
        self.side_information = side_information
        self.side_inputs = side_information.names
        self.l1_weight = l1_weight
        self.optimizers = {
            "generator": generator_optimizer,
            "discriminator": regularisation.optimizer(discriminator_optimizer),
        }

    def networks(self, example):
        height, width, input_channels = example["input"].shape
        output_channels = example["target"].shape[-1]
        side = self.side_information.shapes(example)
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
                side=side,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        discriminator = patchgan(
            name="discriminator",
            input_channels=input_channels + output_channels,
            filters=self.discriminator_filters,
            norm=self.norm,
            spectral_norm=self.regularisation.spectral_norm,
            side=side,
        )
        return {"generator": generator, "discriminator": discriminator}

    def phases(self):
        of_discriminator = {"updates": ("discriminator",), "optimizer": "discriminator"}
        return (
            Phase(name="discriminator", loss=self.discriminator_loss, **of_discriminator),
            *self.regularisation.phases(self.r1_loss, **of_discriminator),
            Phase(name="generator", loss=self.generator_loss, updates=("generator",), optimizer="generator"),
        )

    def forward(self, step: Step):
        inputs = self.side_information.beside(step.batch["input"], step.batch)
        return {"fake": step.networks["generator"](inputs, training=True)}

    def discriminator_loss(self, step: Step):
        """Half of all terms, which slows the discriminator against the generator."""
        terms = self.regularisation.discriminator_terms(
            self._judge(step),
            real=step.batch["target"],
            fake=step.outputs["fake"],
            gan_loss=self.gan_loss,
            seeds=step.seeds,
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def r1_loss(self, step: Step):
        """Half of it, like the other terms of the discriminator."""
        terms = self.regularisation.r1_terms(self._judge(step), real=step.batch["target"], seeds=step.seeds)
        return {name: 0.5 * value for name, value in terms.items()}

    def generator_loss(self, step: Step):
        real, fake = step.batch["target"], step.outputs["fake"]
        return {
            "gan": self.regularisation.generator_loss(
                self._judge(step), real=real, fake=fake, gan_loss=self.gan_loss
            ),
            "l1": self.l1_weight * l1(fake, real),
        }

    def translate(self, networks, batch):
        return networks["generator"](self.side_information.beside(batch["input"], batch), training=False)

    def _judge(self, step: Step):
        def judge(pictures: tf.Tensor, role: str) -> tf.Tensor:
            def seen(x):  # all of them augmented alike
                return self.regularisation.augment(x, step.seeds, role)

            pair = tf.concat([seen(step.batch["input"]), seen(pictures)], axis=-1)  # [B, H, W, Cin + Cout]
            inputs = self.side_information.beside(pair, step.batch, change=seen)
            return step.networks["discriminator"](inputs, training=True)

        return judge
