"""What keeps a discriminator in check: smooth labels, gradient penalties, spectral norm, augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Adam, Phase, Seeds
from models import losses
from models.networks.diff_augment import POLICIES, diff_augment

Judge = Callable[[tf.Tensor, str], tf.Tensor]
"""(pictures [B, H, W, C], role) -> logits [B, ...]; the role names the draws of `augment`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularisation:
    """Settings of a discriminator's regularisation; by default there is none but that of "wgan_gp".

    Args:
      label_smoothing: how far the real label of "bce" and "lsgan" is below 1 for the discriminator.
      gradient_penalty: weight of the penalty that "wgan_gp" always has.
      r1: strength of R1, whose weight is r1 * height * width / global batch; 0.0002 is that of
        StyleGAN2-ADA, 0 leaves it out. A phase of its own makes it in every `r1_every`-th step, that many
        times as heavy.
      spectral_norm: of the discriminator's kernels.
      diff_augment: what is done to all pictures the discriminator sees, such as ("colour", "translation",
        "cutout"); see `models.networks.diff_augment`.
    """

    label_smoothing: float = 0.0
    gradient_penalty: float = 10.0
    r1: float = 0.0
    r1_every: int = 16
    spectral_norm: bool = False
    diff_augment: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ConfigurationError(
                f"Regularisation.label_smoothing = {self.label_smoothing}: must lie in [0, 1); 0.1 is usual"
            )
        if self.gradient_penalty <= 0 or self.r1 < 0 or self.r1_every < 1:
            raise ConfigurationError(
                f"Regularisation: gradient_penalty = {self.gradient_penalty} must be above 0, r1 = {self.r1} "
                f"at least 0, r1_every = {self.r1_every} at least 1"
            )
        if not set(self.diff_augment) <= set(POLICIES):
            raise ConfigurationError(
                f"Regularisation.diff_augment = {self.diff_augment}: unknown; choose among "
                f"{', '.join(POLICIES)}"
            )

    def check(self, *, gan_loss: str, norm: str) -> None:
        """Raises ConfigurationError for an adversarial loss that is unknown or does not go with the rest."""
        known = losses.ADVERSARIAL_LOSSES
        if gan_loss not in known:
            raise ConfigurationError(f"gan_loss = {gan_loss!r}: unknown; use one of {', '.join(known)}")
        if self.label_smoothing and gan_loss not in losses.LABEL_LOSSES:
            raise ConfigurationError(
                f"gan_loss = {gan_loss!r} has no labels to smooth; set Regularisation.label_smoothing to 0, "
                f"or use one of {', '.join(losses.LABEL_LOSSES)}"
            )
        if norm == "batch" and (self.r1 or gan_loss == "wgan_gp"):
            raise ConfigurationError(
                f"norm = 'batch' mixes examples, but {'r1' if self.r1 else 'wgan_gp'} penalises the gradient "
                "of each; set norm (NORM) to 'instance' or 'none'"
            )

    def optimizer(self, settings: Adam) -> Adam:
        """The discriminator's optimizer, which also makes the updates of a lazy R1."""
        return losses.lazy_adam(settings, self.r1_every) if self.r1 else settings

    def phases(self, loss: Callable, *, updates: tuple[str, ...], optimizer: str) -> tuple[Phase, ...]:
        """The row of R1 in the phases table, if there is one; `loss` returns `r1_terms`."""
        row = Phase(name="r1", loss=loss, updates=updates, optimizer=optimizer, every=self.r1_every)
        return (row,) if self.r1 else ()

    def augment(self, pictures: tf.Tensor, seeds: Seeds, role: str) -> tf.Tensor:
        """Pictures as the discriminator is to see them; those of one role in one step change alike."""
        return diff_augment(pictures, seeds, policy=self.diff_augment, name=role)

    def discriminator_terms(
        self,
        judge: Judge,
        *,
        real: tf.Tensor,
        fake: tf.Tensor,
        gan_loss: str,
        seeds: Seeds,
        judged: Sequence[tf.Tensor] | None = None,
    ) -> Mapping[str, tf.Tensor]:
        """What a discriminator minimises, by name, each [B]: see `models.losses.discriminator_terms`.

        `judged` are the logits of real and fake where the task has made them in one pass; by default each has
        a pass, and batch statistics, of its own.
        """
        if judged is None:
            judged_fake = judge(fake, "fake")
            judged_real = judge(real, "real")
        else:
            judged_real, judged_fake = judged
        terms = losses.discriminator_terms(judged_real, judged_fake, gan_loss, smoothing=self.label_smoothing)
        if gan_loss == "wgan_gp":
            share = seeds.uniform("gradient_penalty", (1, 1, 1))  # [B, 1, 1, 1]
            penalty = losses.gradient_penalty(lambda x: judge(x, "mixture"), real, fake, share)
            terms["penalty"] = self.gradient_penalty * penalty
        return terms

    def r1_terms(self, judge: Judge, *, real: tf.Tensor, seeds: Seeds) -> Mapping[str, tf.Tensor]:
        """R1 on real pictures [B, H, W, C], as heavy as its phase is rare."""
        height, width = real.shape[1:3]
        gamma = losses.r1_gamma(height=height, width=width, global_batch=seeds.global_batch, strength=self.r1)
        penalty = losses.r1(lambda x: judge(x, "real"), real)
        return {"penalty": self.r1_every * tf.cast(gamma, penalty.dtype) * penalty}

    def generator_loss(self, judge: Judge, *, real: tf.Tensor, fake: tf.Tensor, gan_loss: str) -> tf.Tensor:
        """What a generator minimises, [B]; the real pictures are judged only where the loss compares."""
        judged_real = judge(real, "real") if gan_loss == "relativistic" else None
        return losses.generator_loss(judge(fake, "fake"), gan_loss, real=judged_real)
