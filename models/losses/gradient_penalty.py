"""Gradient penalties on discriminators, and regularisation that is not due in every step.

The output of a discriminator of patches is their mean, as in the adversarial losses. The gradient of an
example must not depend on other examples, so the discriminator cannot use batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from engine.optimizers import Optimizer
from engine.task import gradient_norm
from models.losses.pixel import mean_per_example
from models.networks.layers import at_least_float32

Discriminator = Callable[[tf.Tensor], tf.Tensor]
"""Images [B, ...] -> logits [B, ...]. Close over the input of a conditional discriminator."""


def gradient_penalty(
    discriminator: Discriminator, real: tf.Tensor, fake: tf.Tensor, share: tf.Tensor
) -> tf.Tensor:
    """Computes (norm of the gradient between real and fake - 1)^2 (WGAN-GP).

    Source: Gulrajani et al., arXiv 1704.00028, where its weight is 10.

    Args:
      discriminator: maps images to logits.
      real: images, [B, ...].
      fake: images, of the same shape.
      share: of the real image in the mixture, [B, 1, ...] in [0, 1), such as
        `step.seeds.uniform("mixture", (1, 1, 1))`.

    Returns:
      [B].
    """
    share = tf.cast(share, real.dtype)
    mixture = share * real + (1 - share) * fake
    return tf.square(gradient_norm(_mean_logit(discriminator), mixture) - 1)


def r1(discriminator: Discriminator, real: tf.Tensor) -> tf.Tensor:
    """Computes half the squared norm of the gradient at real images (R1); at fakes it is R2.

    Multiply it by `r1_gamma`, and by k in a phase with `every=k`.
    Source: Mescheder et al., arXiv 1801.04406, equation 9, for a discriminator with one logit.

    For a discriminator of patches it is the gradient of the mean of P logits. That of their sum, which code
    with `logits.sum()` takes, is P^2 times as large: a weight on the sum is P^2 of it here.

    Args:
      discriminator: maps images to logits.
      real: images, [B, ...].

    Returns:
      [B].
    """
    return 0.5 * tf.square(gradient_norm(_mean_logit(discriminator), real))


def r1_gamma(*, height: int, width: int, global_batch: tf.Tensor | int, strength: float = 2e-4) -> tf.Tensor:
    """Computes the weight of R1: strength * height * width / global_batch.

    It is the rule of StyleGAN2-ADA (Karras et al., arXiv 2006.06676; `--cfg=auto` of its code).

    Args:
      height: of the images, in pixels.
      width: of the images, in pixels.
      global_batch: examples of the whole step, `step.seeds.global_batch`.
      strength: 0.0002 in StyleGAN2-ADA.

    Returns:
      A scalar in Keras's floatx.
    """
    return strength * height * width / tf.cast(global_batch, keras.config.floatx())


def lazy_adam(settings: Optimizer, every: int) -> Optimizer:
    """Adapts an optimizer that also makes the updates of a regulariser in every k-th step.

    With c = k / (k + 1), it multiplies the learning rate by c and raises the betas to the power c, so that
    k + 1 updates move as far, and average over as many examples, as k did.
    Source: Karras et al., arXiv 1912.04958, appendix B.

    Args:
      settings: those of the optimizer without the regulariser.
      every: k, the `every` of the regulariser's phase.
    """
    return settings.slowed(every / (every + 1))


def _mean_logit(discriminator: Discriminator) -> Discriminator:
    return lambda images: mean_per_example(at_least_float32(discriminator(images)))
