"""Losses of structure and of frequency: SSIM, MS-SSIM, SATD, weighted DCT.

Every function takes pictures [B, H, W, C] in [-1, 1] and gives [B], in float32 or, for float64 inputs,
float64. The mathematics is in `data.imaging`.
"""

import numpy as np
import tensorflow as tf

from data import imaging
from models.networks.layers import at_least_float32


def ssim_loss(a, b):
    """1 - SSIM: 0 for equal pictures, at most 2. H and W at least 11 (else ValueError).

    Source: Wang et al., 2004 (doi:10.1109/TIP.2003.819861).
    """
    return 1 - imaging.structural_similarity(_unit_range(a), _unit_range(b), peak=1.0)


def ms_ssim_loss(a, b, *, weights=imaging.MS_SSIM_WEIGHTS):
    """1 - MS-SSIM: 0 for equal pictures, below 1 for others.

    `weights`: one exponent a scale, from fine to coarse; with the five published ones H and W must be at
    least 161, with three 41 (else ValueError). Source: Wang et al., 2003 (doi:10.1109/ACSSC.2003.1292216).
    """
    return 1 - imaging.multiscale_similarity(_unit_range(a), _unit_range(b), peak=1.0, weights=weights)


def satd(a, b, *, size=4):
    """Sum of absolute Hadamard-transformed differences in blocks, for each pixel and channel.

    The transform is orthonormal, so that values are comparable with L1: a difference as wide as one pixel
    counts less, structures count more. HEVC's reference encoder counts twice the sum in a block of 4x4
    (size=4) or of 8x8 (size=8), rounded.
    """
    coefficients = imaging.block_hadamard(_difference(a, b), size=size)
    return _sum_per_example(tf.abs(coefficients)) / _values_per_example(a)


def weighted_dct(a, b, *, weights=None):
    """Absolute values of the DCT of the difference in blocks, weighted, for each pixel and channel.

    `weights` [n, n]: of the coefficients of a block of n x n pixels, the constant part first, rows by
    vertical frequency; by default the inverse of JPEG's quantisation steps for luminance (8x8), with mean 1,
    which counts as much as the eye sees.
    """
    if weights is None:
        weights = 1 / imaging.JPEG_LUMINANCE
        weights = weights / weights.mean()
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"weights of a block of n x n coefficients must be [n, n], not {weights.shape}")
    coefficients = imaging.block_dct(_difference(a, b), size=len(weights))
    weighted = tf.abs(coefficients) * tf.constant(weights, coefficients.dtype)
    return _sum_per_example(weighted) / _values_per_example(a)


def _unit_range(images):
    """[-1, 1] -> [0, 1], in which SSIM is defined."""
    return (at_least_float32(images) + 1) / 2


def _difference(a, b):
    return at_least_float32(a) - at_least_float32(b)


def _sum_per_example(x):
    return tf.reduce_sum(x, axis=list(range(1, x.shape.rank)))


def _values_per_example(images):
    """H * W * C: blocks beyond the edge are zeros, which do not count."""
    images = at_least_float32(images)
    return tf.cast(tf.reduce_prod(tf.shape(images)[1:]), images.dtype)
