"""An unconditional discriminator of the images of one domain, and its losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from data.roles import TARGET
from engine.task import Step
from models.networks.joint_pass import pass_both
from models.networks.patchgan import check_patchgan_size, patchgan
from models.regularisation import Discriminator, Regularisation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainDiscriminator:
    """A discriminator that does not see the inputs of the generator; images are [B, H, W, C].

    Its own losses are halved, which slows it down against the generator, as published for pix2pix, CycleGAN
    and CUT.

    Attributes:
      network: name of the discriminator's network.
      filters: channels of its first layer; those of the other layers are multiples of it.
      norm: "batch", "instance" or "none".
      gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`.
      regularisation: of the discriminator.
      domain: "input" or "target": the domain of its images.

    Raises:
      ConfigurationError: loss, norm and regularisation contradict each other.
    """

    network: str
    filters: int
    norm: str
    gan_loss: str
    regularisation: Regularisation
    domain: str = TARGET

    def __post_init__(self) -> None:
        self.regularisation.check(gan_loss=self.gan_loss, norm=self.norm)

    def build(self, shape: Sequence[int]) -> keras.Model:
        """Builds the network.

        Args:
          shape: [H, W, C] of the images.

        Raises:
          ConfigurationError: the images are too small.
        """
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
        """Computes what the discriminator minimises.

        Args:
          step: the current step.
          real: images of the domain.
          fake: images from the generator.

        Returns:
          The terms by name, each [B].
        """
        augmented = self._augment(step, real, "real"), self._augment(step, fake, "fake")
        terms = self.regularisation.discriminator_terms(
            self._discriminator(step),
            real=real,
            fake=fake,
            gan_loss=self.gan_loss,
            seeds=step.seeds,
            logits=pass_both(step.networks[self.network], *augmented),
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def r1_penalty(self, step: Step, *, real: tf.Tensor) -> tf.Tensor:
        """Computes R1, [B]: the loss of the phase from `Regularisation.phases`.

        Args:
          step: the current step.
          real: images of the domain.
        """
        terms = self.regularisation.r1_terms(self._discriminator(step), real=real, seeds=step.seeds)
        return 0.5 * terms["penalty"]

    def generator_loss(self, step: Step, *, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """Computes what the generator minimises, [B].

        Args:
          step: the current step.
          real: images of the domain; only "relativistic" uses them.
          fake: images from the generator; gradients flow through them.
        """
        return self.regularisation.generator_loss(
            self._discriminator(step), real=real, fake=fake, gan_loss=self.gan_loss
        )

    def _discriminator(self, step: Step) -> Discriminator:
        return lambda images, role: step.networks[self.network](
            self._augment(step, images, role), training=True
        )

    def _augment(self, step: Step, images: tf.Tensor, role: str) -> tf.Tensor:
        return self.regularisation.augment(
            images, step.seeds, f"{self.network}/{role}", are_labels=self.domain in step.label_roles
        )
