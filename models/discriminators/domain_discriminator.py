"""A discriminator of one domain, which does not see what fakes were made from, and its losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from engine.task import Step
from models.networks.joint_pass import pass_both
from models.networks.patchgan import check_patchgan_size, patchgan
from models.regularisation import Regularisation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainDiscriminator:
    """An unconditional discriminator against the generator of its domain; pictures [B, H, W, C].

    Those of the discriminator are halved, which slows it against the generator, as published for pix2pix,
    CycleGAN and CUT.

    Args:
      network: name of the discriminator.
      filters: channels of its first layer; all others follow.
      norm: "batch", "instance" or "none".
      gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`.
      regularisation: of the discriminator.
    """

    network: str
    filters: int
    norm: str
    gan_loss: str
    regularisation: Regularisation

    def __post_init__(self):
        self.regularisation.check(gan_loss=self.gan_loss, norm=self.norm)

    def build(self, shape: Sequence[int]) -> keras.Model:
        """The discriminator of pictures [H, W, C]; ConfigurationError for a size it does not take."""
        height, width, channels = shape
        check_patchgan_size(height, width)
        return patchgan(
            name=self.network,
            input_channels=channels,
            filters=self.filters,
            norm=self.norm,
            spectral_norm=self.regularisation.spectral_norm,
        )

    def discriminator_terms(self, step: Step, *, real: tf.Tensor, fake: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the discriminator minimises, by name, each [B]."""
        seen = [self._augment(step, real, "real"), self._augment(step, fake, "fake")]
        terms = self.regularisation.discriminator_terms(
            self._judge(step),
            real=real,
            fake=fake,
            gan_loss=self.gan_loss,
            seeds=step.seeds,
            logits=pass_both(step.networks[self.network], *seen),
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def r1_penalty(self, step: Step, *, real: tf.Tensor) -> tf.Tensor:
        """R1, [B]: the loss of the row that `Regularisation.phases` makes."""
        terms = self.regularisation.r1_terms(self._judge(step), real=real, seeds=step.seeds)
        return 0.5 * terms["penalty"]

    def generator_loss(self, step: Step, *, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """What the generator minimises, [B]; gradients flow to `fake`."""
        return self.regularisation.generator_loss(
            self._judge(step), real=real, fake=fake, gan_loss=self.gan_loss
        )

    def _judge(self, step: Step):
        return lambda pictures, role: step.networks[self.network](
            self._augment(step, pictures, role), training=True
        )

    def _augment(self, step: Step, pictures: tf.Tensor, role: str) -> tf.Tensor:
        return self.regularisation.augment(pictures, step.seeds, f"{self.network}/{role}")
