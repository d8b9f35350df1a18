"""Gradient penalties on discriminators, and regularisation that is not due every step.

A discriminator of patches is taken as its mean over them, as in the adversarial losses. The gradient of an
example must not depend on other examples, so that batch normalisation cannot be used.
"""

import dataclasses

import keras
import tensorflow as tf

from engine.task import gradient_norm
from models.losses.pixel import mean_per_example
from models.networks.layers import at_least_float32


def gradient_penalty(discriminator, real, fake, share):
    """(norm of the gradient between real and fake - 1)^2, for each example (WGAN-GP).

    Source: Gulrajani et al., arXiv 1704.00028, where its weight is 10.

    Args:
      discriminator: maps pictures to logits [B, ...].
      real, fake: [B, ...]; a conditional discriminator's condition is best left out and closed over.
      share: of the real picture in the mixture, [B, 1, ...] in [0, 1), such as
        `step.seeds.uniform("mixture", (1, 1, 1))`.

    Returns:
      [B].
    """
    share = tf.cast(share, real.dtype)
    mixture = share * real + (1 - share) * fake
    return tf.square(gradient_norm(_mean_logit(discriminator), mixture) - 1)


def r1(discriminator, real):
    """Half the squared norm of the gradient at real pictures, for each example: [B, ...] -> [B].

    To be multiplied by gamma (`r1_gamma`), and by k in a phase with `every=k`. On fakes it is R2.
    Source: Mescheder et al., arXiv 1801.04406, equation 9.
    """
    return 0.5 * tf.square(gradient_norm(_mean_logit(discriminator), real))


def r1_gamma(*, height, width, global_batch, strength=2e-4):
    """Weight of R1 for pictures of that size: strength * height * width / global_batch.

    The rule of StyleGAN2-ADA (Karras et al., arXiv 2006.06676; `--cfg=auto` of its code): a doubled batch
    halves it, a doubled resolution quadruples it.

    Args:
      global_batch: examples of the whole step, `step.seeds.global_batch`; or an int.

    Returns:
      A scalar in Keras's floatx.
    """
    return strength * height * width / tf.cast(global_batch, keras.config.floatx())


def lazy_adam(settings, every):
    """Settings of an optimizer that, beside its own updates, makes a regulariser's every k-th step.

    With c = k / (k + 1): learning rate c times as large, beta^c, so that k + 1 updates move as far, and
    average over as many examples, as k did. Source: Karras et al., arXiv 1912.04958, appendix B.

    Args:
      settings: an `engine.task.Adam`.
      every: k, the `every` of the regulariser's phase.
    """
    c = every / (every + 1)
    return dataclasses.replace(
        settings,
        learning_rate=settings.learning_rate * c,
        beta1=settings.beta1**c,
        beta2=settings.beta2**c,
    )


def _mean_logit(discriminator):
    return lambda pictures: mean_per_example(at_least_float32(discriminator(pictures)))
