"""Adversarial losses: what a discriminator and a generator minimise, one number per example.

Logits are [B, ...] without a sigmoid: one for each patch, or one for each example. Losses are the mean over
them, [B]. Gradient penalties are in `models.losses.gradient_penalty`.
"""

from __future__ import annotations

import tensorflow as tf

from models.losses.pixel import mean_per_example
from models.networks.layers import at_least_float32

LABEL_LOSSES = ("bce", "lsgan")
"""The losses that compare logits with a label: those of `gan_loss`."""

ADVERSARIAL_LOSSES = (*LABEL_LOSSES, "hinge", "wgan_gp", "relativistic")
"""The losses of `discriminator_terms` and `generator_loss`."""


def gan_loss(logits: tf.Tensor, real: bool, kind: str = "bce", *, smoothing: float = 0.0) -> tf.Tensor:
    """Computes the distance between a discriminator's logits and the label real (1) or fake (0).

    Args:
      logits: [B, ...], without a sigmoid.
      real: the label.
      kind: "bce", binary cross-entropy (Goodfellow et al., 2014), which is the non-saturating loss of a
        generator for its fakes with `real=True`; or "lsgan", the squared distance (Mao et al., 2017).
      smoothing: the real label is 1 - smoothing. The fake label stays 0, since smoothing it would reward the
        discriminator for fakes where they are (one-sided: Salimans et al., 2016, section 3.4).

    Returns:
      [B].

    Raises:
      ValueError: the kind is unknown.
    """
    logits = at_least_float32(logits)
    label = 1.0 - smoothing if real else 0.0
    if kind == "bce":
        # -y log sigmoid(x) - (1 - y) log(1 - sigmoid(x)), without overflow.
        losses = tf.nn.softplus(-logits if real else logits)
        return mean_per_example(losses + smoothing * logits if real and smoothing else losses)
    if kind == "lsgan":
        return mean_per_example(tf.square(logits - label))
    raise ValueError(f"adversarial loss {kind!r}: unknown; use one of {', '.join(LABEL_LOSSES)}")


def discriminator_terms(
    real: tf.Tensor, fake: tf.Tensor, kind: str, *, smoothing: float = 0.0
) -> dict[str, tf.Tensor]:
    """Computes the terms that a discriminator minimises.

    - "bce", "lsgan": "real" and "fake"; see `gan_loss`.
    - "hinge": max(0, 1 - real) and max(0, 1 + fake) (Lim and Ye, arXiv 1705.02894).
    - "wgan_gp": -real and fake (Arjovsky et al., arXiv 1701.07875); add `gradient_penalty`.
    - "relativistic": "pair", softplus(fake - real) of the real and the fake logit of each patch
      (Jolicoeur-Martineau, arXiv 1807.00734, RpGAN).

    Args:
      real: logits of real images, [B, ...].
      fake: logits of fakes, of the same shape.
      kind: one of ADVERSARIAL_LOSSES.
      smoothing: of the real label, for "bce" and "lsgan".

    Returns:
      The terms by name, each [B].

    Raises:
      ValueError: the kind is unknown, or has no labels to smooth.
    """
    if kind in LABEL_LOSSES:
        return {
            "fake": gan_loss(fake, real=False, kind=kind),
            "real": gan_loss(real, real=True, kind=kind, smoothing=smoothing),
        }
    _check_kind(kind)
    if smoothing:
        raise ValueError(f"adversarial loss {kind!r}: has no labels to smooth; set smoothing to 0")
    real, fake = at_least_float32(real), at_least_float32(fake)
    if kind == "hinge":
        return {
            "fake": mean_per_example(tf.nn.relu(1 + fake)),
            "real": mean_per_example(tf.nn.relu(1 - real)),
        }
    if kind == "wgan_gp":
        return {"fake": mean_per_example(fake), "real": -mean_per_example(real)}
    return {"pair": mean_per_example(tf.nn.softplus(fake - real))}


def generator_loss(fake: tf.Tensor, kind: str, *, real: tf.Tensor | None = None) -> tf.Tensor:
    """Computes what a generator minimises; see `discriminator_terms` for the papers.

    "bce" and "lsgan" give fakes the label real; "hinge" and "wgan_gp" minimise -fake; "relativistic"
    minimises softplus(real - fake).

    Args:
      fake: logits of fakes, [B, ...].
      kind: one of ADVERSARIAL_LOSSES.
      real: logits of real images, of the same shape; only "relativistic" needs them.

    Returns:
      [B].

    Raises:
      ValueError: the kind is unknown, or needs the logits of real images.
    """
    if kind in LABEL_LOSSES:
        return gan_loss(fake, real=True, kind=kind)
    _check_kind(kind)
    fake = at_least_float32(fake)
    if kind == "relativistic":
        if real is None:
            raise ValueError("adversarial loss 'relativistic': compares with real images; pass their logits")
        return mean_per_example(tf.nn.softplus(at_least_float32(real) - fake))
    return -mean_per_example(fake)


def _check_kind(kind: str) -> None:
    if kind not in ADVERSARIAL_LOSSES:
        raise ValueError(f"adversarial loss {kind!r}: unknown; use one of {', '.join(ADVERSARIAL_LOSSES)}")
