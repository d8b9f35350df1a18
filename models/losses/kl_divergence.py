"""Losses of latent codes."""

import tensorflow as tf

from models.networks.layers import at_least_float32


def kl_from_standard_normal(mean, log_variance):
    """KL divergence of N(mean, exp(log_variance)) from N(0, 1), the sum over the code: [B, Z] -> [B].

    In nats; the covariance is diagonal. Source: Kingma and Welling, arXiv 1312.6114, appendix B.
    """
    mean, log_variance = at_least_float32(mean), at_least_float32(log_variance)
    return 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - 1 - log_variance, axis=1)
