"""Regularisation of a discriminator: smooth labels, gradient penalties, spectral norm, augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.optimizers import Optimizer
from engine.task import Phase, Seeds, Step
from models import losses
from models.networks.diff_augment import POLICIES, diff_augment

Discriminator = Callable[[tf.Tensor, str], tf.Tensor]
"""(images [B, H, W, C], role) -> logits [B, ...]; the role names the random numbers of `augment`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularisation:
    """Settings of a discriminator's regularisation; by default only the penalty of "wgan_gp".

    Attributes:
      label_smoothing: for the discriminator, "bce" and "lsgan" have a real label of 1 - label_smoothing.
      gradient_penalty: weight of the gradient penalty; only "wgan_gp" has one.
      r1: strength of R1, whose weight is r1 * height * width / global batch; 0 leaves it out. It is a
        separate phase. 0.0002 is StyleGAN2-ADA's, whose discriminator has one logit; for a discriminator of
        patches see `models.losses.r1`.
      r1_every: R1 is due in every `r1_every`-th step, with that many times its weight (lazy regularisation).
      spectral_norm: whether to normalise the discriminator's kernels.
      diff_augment: augmentations of all images that the discriminator sees, such as ("colour",
        "translation", "cutout"); see `models.networks.diff_augment`.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    label_smoothing: float = 0.0
    gradient_penalty: float = 10.0
    r1: float = 0.0
    r1_every: int = 16
    spectral_norm: bool = False
    diff_augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigurationError(
                f"Regularisation.label_smoothing = {self.label_smoothing}: must lie in [0, 1); 0.1 is usual"
            )
        if self.gradient_penalty <= 0 or self.r1 < 0 or self.r1_every < 1:
            raise ConfigurationError(
                f"Regularisation: gradient_penalty = {self.gradient_penalty} must be above 0, r1 = {self.r1} "
                f"at least 0, r1_every = {self.r1_every} at least 1; correct them"
            )
        if not set(self.diff_augment) <= set(POLICIES):
            raise ConfigurationError(
                f"Regularisation.diff_augment = {self.diff_augment}: unknown; choose among "
                f"{', '.join(POLICIES)}"
            )

    def check(self, *, gan_loss: str, norm: str) -> None:
        """Checks the adversarial loss and the norm of a discriminator.

        Args:
          gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`.
          norm: "batch", "instance" or "none".

        Raises:
          ConfigurationError: the loss is unknown, or cannot be combined with the norm or these settings.
        """
        known = losses.ADVERSARIAL_LOSSES
        if gan_loss not in known:
            raise ConfigurationError(f"gan_loss = {gan_loss!r}: unknown; use one of {', '.join(known)}")
        if self.label_smoothing and gan_loss not in losses.LABEL_LOSSES:
            raise ConfigurationError(
                f"gan_loss = {gan_loss!r}: has no labels to smooth; set Regularisation.label_smoothing to 0, "
                f"or use one of {', '.join(losses.LABEL_LOSSES)}"
            )
        if norm == "batch" and (self.r1 or gan_loss == "wgan_gp"):
            penalty = "r1" if self.r1 else "wgan_gp"
            raise ConfigurationError(
                f"norm = 'batch': mixes examples, but {penalty} penalises the gradient of each; set norm "
                "(NORM) to 'instance' or 'none'"
            )

    def optimizer(self, settings: Optimizer) -> Optimizer:
        """Returns the settings of the discriminator's optimizer; with R1 they allow for its extra updates.

        Args:
          settings: for a discriminator without R1.
        """
        return losses.lazy_adam(settings, self.r1_every) if self.r1 else settings

    def phases(
        self,
        loss: Callable[[Step], Mapping[str, tf.Tensor]],
        *,
        updates: tuple[str, ...],
        optimizer: str,
    ) -> tuple[Phase, ...]:
        """Returns the phase of R1, or none without R1.

        Args:
          loss: a function of the task that returns `r1_terms`.
          updates: names of the discriminators.
          optimizer: name of their optimizer.
        """
        if not self.r1:
            return ()
        return (Phase(name="r1", loss=loss, updates=updates, optimizer=optimizer, every=self.r1_every),)

    def augment(self, images: tf.Tensor, seeds: Seeds, role: str, *, are_labels: bool = False) -> tf.Tensor:
        """Augments images for the discriminator.

        Args:
          images: [B, H, W, C].
          seeds: those of the step.
          role: names the random numbers: the same role in the same step gets the same augmentation.
          are_labels: whether the values of the images are classes, which keep their colours.

        Returns:
          [B, H, W, C].
        """
        policy = [part for part in self.diff_augment if not (are_labels and part == "colour")]
        return diff_augment(images, seeds, policy=policy, name=role)

    def discriminator_terms(
        self,
        discriminator: Discriminator,
        *,
        real: tf.Tensor,
        fake: tf.Tensor,
        gan_loss: str,
        seeds: Seeds,
        logits: Sequence[tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the terms that a discriminator minimises; see `models.losses.discriminator_terms`.

        Args:
          discriminator: maps images and their role to logits.
          real: images [B, H, W, C].
          fake: images [B, H, W, C].
          gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`.
          seeds: those of the step.
          logits: of real and fake, if the task has computed them together. By default each gets its own
            pass, with its own batch statistics.

        Returns:
          The terms by name, each [B].
        """
        if logits is None:
            fake_logits = discriminator(fake, "fake")
            real_logits = discriminator(real, "real")
        else:
            real_logits, fake_logits = logits
        terms = dict(
            losses.discriminator_terms(real_logits, fake_logits, gan_loss, smoothing=self.label_smoothing)
        )
        if gan_loss == "wgan_gp":
            weight = seeds.uniform("gradient_penalty", (1, 1, 1))  # [B, 1, 1, 1]
            penalty = losses.gradient_penalty(lambda x: discriminator(x, "mixture"), real, fake, weight)
            terms["penalty"] = self.gradient_penalty * penalty
        return terms

    def r1_terms(
        self, discriminator: Discriminator, *, real: tf.Tensor, seeds: Seeds
    ) -> dict[str, tf.Tensor]:
        """Returns R1, multiplied by `r1_every` because its phase is due only so often.

        Args:
          discriminator: maps images and their role to logits.
          real: images [B, H, W, C].
          seeds: those of the step.

        Returns:
          "penalty", [B].
        """
        height, width = real.shape[1:3]
        gamma = losses.r1_gamma(height=height, width=width, global_batch=seeds.global_batch, strength=self.r1)
        penalty = losses.r1(lambda x: discriminator(x, "real"), real)
        return {"penalty": self.r1_every * tf.cast(gamma, penalty.dtype) * penalty}

    def generator_loss(
        self, discriminator: Discriminator, *, real: tf.Tensor, fake: tf.Tensor, gan_loss: str
    ) -> tf.Tensor:
        """Returns the adversarial term that a generator minimises.

        Args:
          discriminator: maps images and their role to logits.
          real: images [B, H, W, C]; only "relativistic" uses them.
          fake: images [B, H, W, C]; gradients flow through them.
          gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`.

        Returns:
          [B].
        """
        real_logits = discriminator(real, "real") if gan_loss == "relativistic" else None
        return losses.generator_loss(discriminator(fake, "fake"), gan_loss, real=real_logits)
