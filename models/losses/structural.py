"""Losses of structure and frequency: SSIM, MS-SSIM, SATD, weighted DCT.

Every function compares images [B, H, W, C] in [-1, 1] and returns [B], in float32 or, for float64 inputs,
float64. The mathematics is in `data.imaging`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from data import imaging
from models.networks.layers import at_least_float32


def ssim_loss(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Computes 1 - SSIM: 0 for equal images, at most 2.

    Source: Wang et al., 2004 (doi:10.1109/TIP.2003.819861).

    Args:
      a: images of at least 11x11 pixels.
      b: images of the same shape.

    Raises:
      ValueError: the images are too small.
    """
    return 1 - imaging.structural_similarity(_unit_range(a), _unit_range(b), peak=1.0)


def ms_ssim_loss(
    a: tf.Tensor, b: tf.Tensor, *, weights: Sequence[float] = imaging.MS_SSIM_WEIGHTS
) -> tf.Tensor:
    """Computes 1 - MS-SSIM: 0 for equal images, else below 1.

    Source: Wang et al., 2003 (doi:10.1109/ACSSC.2003.1292216).

    Args:
      a: images; of at least 161x161 pixels for five scales, 41x41 for three.
      b: images of the same shape.
      weights: one exponent for each scale, from fine to coarse; by default the five published ones.

    Raises:
      ValueError: the images are too small.
    """
    return 1 - imaging.multiscale_similarity(_unit_range(a), _unit_range(b), peak=1.0, weights=weights)


def satd(a: tf.Tensor, b: tf.Tensor, *, size: int = 4) -> tf.Tensor:
    """Computes the sum of absolute Hadamard-transformed differences in blocks, per pixel and channel.

    The transform is orthonormal, so values are comparable with L1: a difference in a single pixel counts
    `size` times as much as there, one that fills a block evenly 1 / `size` times. HEVC's reference encoder
    takes twice the sum in a block of 4x4 (size=4) or of 8x8 (size=8), rounded.

    Args:
      a: images.
      b: images of the same shape.
      size: of the blocks, in pixels.
    """
    coefficients = imaging.block_hadamard(_difference(a, b), size=size)
    return _sum_per_example(tf.abs(coefficients)) / _values_per_example(a)


def weighted_dct(a: tf.Tensor, b: tf.Tensor, *, weights: npt.ArrayLike | None = None) -> tf.Tensor:
    """Computes the weighted absolute DCT coefficients of the difference in blocks, per pixel and channel.

    Args:
      a: images.
      b: images of the same shape.
      weights: [n, n], for the coefficients of a block of n x n pixels: the constant one first, each row for
        one vertical frequency. By default the inverse of JPEG's quantisation steps for luminance (8x8),
        scaled to a mean of 1, which follows the sensitivity of the eye.

    Raises:
      ValueError: the weights are not square.
    """
    if weights is None:
        jpeg = 1 / imaging.JPEG_LUMINANCE
        weights = jpeg / jpeg.mean()
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError(f"weights of DCT coefficients: must be [n, n], not {weights.shape}; correct them")
    coefficients = imaging.block_dct(_difference(a, b), size=len(weights))
    weighted = tf.abs(coefficients) * tf.constant(weights, coefficients.dtype)
    return _sum_per_example(weighted) / _values_per_example(a)


def _unit_range(images: tf.Tensor) -> tf.Tensor:
    """[-1, 1] -> [0, 1], in which SSIM is defined."""
    return (at_least_float32(images) + 1) / 2


def _difference(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return at_least_float32(a) - at_least_float32(b)


def _sum_per_example(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=list(range(1, x.shape.rank)))


def _values_per_example(images: tf.Tensor) -> tf.Tensor:
    """H * W * C; pixels beyond the edge in blocks are zeros and do not count."""
    images = at_least_float32(images)
    return tf.cast(tf.reduce_prod(tf.shape(images)[1:]), images.dtype)
