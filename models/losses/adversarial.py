"""Adversarial losses: what a discriminator and a generator minimise, one number per example.

Logits are [B, ...] without a sigmoid, one for each patch that the discriminator judges, or one an example;
losses are [B], their mean. Gradient penalties are in `models.losses.gradient_penalty`.
"""

import tensorflow as tf

from models.losses.pixel import mean_per_example
from models.networks.layers import at_least_float32

LABEL_LOSSES = ("bce", "lsgan")
"""Those that compare logits with a label, and take `gan_loss`."""

ADVERSARIAL_LOSSES = (*LABEL_LOSSES, "hinge", "wgan_gp", "relativistic")
"""Those that `discriminator_terms` and `generator_loss` take."""


def gan_loss(logits, real, kind="bce", *, smoothing=0.0):
    """How far a discriminator's logits are from the label real (1) or fake (0).

    logits [B, ...], without a sigmoid; `real` a Python bool -> [B].
    `kind`: "bce", binary cross-entropy (Goodfellow et al., 2014; the generator's loss, with
    `real=True` on its fakes, is the non-saturating one), or "lsgan", the squared distance to the
    label (Mao et al., 2017). Raises ValueError for another.
    `smoothing` makes the real label 1 - smoothing; that of fakes stays 0, else a discriminator would be
    rewarded for fakes where they are (one-sided: Salimans et al., 2016, section 3.4).
    """
    logits = at_least_float32(logits)
    label = 1.0 - smoothing if real else 0.0
    if kind == "bce":
        # -y log sigmoid(x) - (1 - y) log(1 - sigmoid(x)), without overflow.
        losses = tf.nn.softplus(-logits if real else logits)
        return mean_per_example(losses + smoothing * logits if real and smoothing else losses)
    if kind == "lsgan":
        return mean_per_example(tf.square(logits - label))
    raise ValueError(f"unknown kind of adversarial loss {kind!r}; choose one of: {', '.join(LABEL_LOSSES)}")


def discriminator_terms(real, fake, kind, *, smoothing=0.0):
    """What a discriminator minimises, by name; each term [B].

    - "bce", "lsgan": "real" and "fake", see `gan_loss`.
    - "hinge": max(0, 1 - real) and max(0, 1 + fake) (Lim and Ye, arXiv 1705.02894).
    - "wgan_gp": -real and fake (Arjovsky et al., arXiv 1701.07875), to which `gradient_penalty` belongs.
    - "relativistic": "pair", softplus(fake - real) of each example's real and fake, patch by patch
      (Jolicoeur-Martineau, arXiv 1807.00734, RpGAN).

    Args:
      real, fake: logits [B, ...] of one shape.
      kind: one of ADVERSARIAL_LOSSES.
      smoothing: of the real label, of "bce" and "lsgan".

    Raises:
      ValueError: an unknown kind, or smoothing for a kind without labels.
    """
    if kind in LABEL_LOSSES:
        return {
            "fake": gan_loss(fake, real=False, kind=kind),
            "real": gan_loss(real, real=True, kind=kind, smoothing=smoothing),
        }
    _check_kind(kind)
    if smoothing:
        raise ValueError(f"the adversarial loss {kind!r} has no labels to smooth; set smoothing to 0")
    real, fake = at_least_float32(real), at_least_float32(fake)
    if kind == "hinge":
        return {
            "fake": mean_per_example(tf.nn.relu(1 + fake)),
            "real": mean_per_example(tf.nn.relu(1 - real)),
        }
    if kind == "wgan_gp":
        return {"fake": mean_per_example(fake), "real": -mean_per_example(real)}
    return {"pair": mean_per_example(tf.nn.softplus(fake - real))}


def generator_loss(fake, kind, *, real=None):
    """What a generator minimises, [B]: see `discriminator_terms` for the kinds and papers.

    "bce" and "lsgan" want their fakes labelled real; "hinge" and "wgan_gp" minimise -fake;
    "relativistic" softplus(real - fake), and is the only one that needs the logits of the real examples.
    """
    if kind in LABEL_LOSSES:
        return gan_loss(fake, real=True, kind=kind)
    _check_kind(kind)
    fake = at_least_float32(fake)
    if kind == "relativistic":
        if real is None:
            raise ValueError("the relativistic loss compares with real examples; give their logits")
        return mean_per_example(tf.nn.softplus(at_least_float32(real) - fake))
    return -mean_per_example(fake)


def _check_kind(kind):
    if kind not in ADVERSARIAL_LOSSES:
        known = ", ".join(ADVERSARIAL_LOSSES)
        raise ValueError(f"unknown kind of adversarial loss {kind!r}; choose one of: {known}")
