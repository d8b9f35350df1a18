"""Losses, one number per example.

Every function returns [B], the mean over all other axes, in float32 or, for float64 inputs, float64. None
divides by a batch size: the engine divides by the global one.
"""

from models.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    LABEL_LOSSES,
    discriminator_terms,
    gan_loss,
    generator_loss,
)
from models.losses.colour_space import to_colour_space
from models.losses.feature_matching import feature_matching, with_activations
from models.losses.gradient_penalty import gradient_penalty, lazy_adam, r1, r1_gamma
from models.losses.kl_divergence import kl_from_standard_normal
from models.losses.labels import cross_entropy, huber
from models.losses.patch_nce import patch_nce
from models.losses.perceptual import Perceptual
from models.losses.pixel import charbonnier, l1, l2, mean_per_example, total_variation
from models.losses.structural import ms_ssim_loss, satd, ssim_loss, weighted_dct
from models.losses.top_k import top_k

__all__ = [
    "ADVERSARIAL_LOSSES",
    "LABEL_LOSSES",
    "Perceptual",
    "charbonnier",
    "cross_entropy",
    "discriminator_terms",
    "feature_matching",
    "gan_loss",
    "generator_loss",
    "gradient_penalty",
    "huber",
    "kl_from_standard_normal",
    "l1",
    "l2",
    "lazy_adam",
    "mean_per_example",
    "ms_ssim_loss",
    "patch_nce",
    "r1",
    "r1_gamma",
    "satd",
    "ssim_loss",
    "to_colour_space",
    "top_k",
    "total_variation",
    "weighted_dct",
    "with_activations",
]
