"""Losses of latent codes."""

from __future__ import annotations

import tensorflow as tf

from models.networks.layers import at_least_float32


def kl_from_standard_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Computes the KL divergence of N(mean, exp(log_variance)) from N(0, 1), summed over the code, in nats.

    Source: Kingma and Welling, arXiv 1312.6114, appendix B.

    Args:
      mean: [B, Z].
      log_variance: [B, Z], the diagonal of the covariance.

    Returns:
      [B].
    """
    mean, log_variance = at_least_float32(mean), at_least_float32(log_variance)
    return 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1 - log_variance, axis=1)
