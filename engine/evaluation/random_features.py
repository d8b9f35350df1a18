"""A small fixed network for FID and KID that needs no file and no download: random filters at three scales.

It sees what textures and colours images have, not what they show: noise, blur, blocks, missing detail and
false colours. It does not know a horse from a zebra by their shapes. Figures are comparable only with each
other, not with published ones.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf

from data.imaging import to_signed_by_range
from engine.feature_extractor import FeatureExtractor, FeatureNetwork

MIN_IMAGE_SIZE = 16
"""Pixels of the smallest height and width."""

_SCALES = 3
_FILTERS = 16  # of each layer at each scale
_CONTRAST_SIZE, _TEXTURE_SIZE = 5, 3  # of the filters of the first layer and the second, in pixels
_SEED = 20
_FAINT = 0.01  # responses far below this count as none: about one of 255 grey levels
_TYPICAL = 0.1


class RandomFeatures(FeatureExtractor):
    """Statistics of random filters at three scales: 144 features, and two for each channel.

    At scales 1, 1/2 and 1/4, filters of 5x5 pixels that sum to 0 give contrast; its absolute value, halved,
    goes through filters of 3x3 pixels, which give texture. Of both, the features are the logarithms of the
    mean absolute value over the whole image, and of the contrast also the mean of the logarithms, which sees
    faint noise in flat areas. The mean and the logarithm of the standard deviation of each channel are added.

    The weights are a rule, so they are the same everywhere: the integers of the PCG64 generator with seed 20,
    as normal numbers by the Box-Muller transform, minus the mean of each filter over its pixels, divided by
    the filter's length.

    Random filters as features: Jarrett et al. 2009 (doi:10.1109/ICCV.2009.5459469), Ustyuzhaninov et al.,
    arXiv 1606.00021.
    """

    @property
    def identity(self) -> str:
        """It never changes; other weights or features would need another name."""
        return "random features 1"

    def build(self) -> FeatureNetwork:
        """Returns `random_features`."""
        return random_features


def random_features(images: tf.Tensor, value_range: tuple[float, float] | None = None) -> tf.Tensor:
    """Computes the features of `RandomFeatures`.

    Args:
      images: [B, H, W, C] of any number of channels, H and W at least 16.
      value_range: lowest and highest possible value; None for that of the dtype (uint8, uint16).

    Returns:
      float32 [B, 144 + 2 C], most of them between -2.3 and 2.3.

    Raises:
      TypeError: floats come without a range.
      ValueError: the shape is not [B, H, W, C], or H or W is less than 16.
    """
    x = to_signed_by_range(images, value_range, what="random features")
    if min(x.shape[1:3]) < MIN_IMAGE_SIZE:
        raise ValueError(
            f"random features: need images of at least {MIN_IMAGE_SIZE} x {MIN_IMAGE_SIZE} pixels, not "
            f"{x.shape[1]} x {x.shape[2]}; raise their size"
        )
    mean, variance = tf.nn.moments(x, axes=[1, 2])  # [B, C]
    features = [mean / 0.5, _log(tf.sqrt(variance))]
    for contrast_filters, texture_filters in _weights(x.shape[-1]):
        contrast = tf.abs(_filtered(x, contrast_filters))  # [B, H, W, 16]
        texture = tf.abs(_filtered(_halved(contrast), texture_filters))  # [B, H/2, W/2, 16]
        features += [
            _log(tf.reduce_mean(contrast, axis=[1, 2])),
            tf.reduce_mean(_log(contrast), axis=[1, 2]),
            _log(tf.reduce_mean(texture, axis=[1, 2])),
        ]
        x = _halved(x)
    return tf.concat(features, axis=1)


def _log(responses: tf.Tensor) -> tf.Tensor:
    """0 at a typical response, -2.3 at none: a factor counts the same for faint and strong ones."""
    return tf.math.log((responses + _FAINT) / _TYPICAL)


def _filtered(x: tf.Tensor, filters: np.ndarray) -> tf.Tensor:
    """Convolution of mirrored images: [B, H, W, C] and [K, K, C, F] -> [B, H, W, F]."""
    pad = [len(filters) // 2] * 2
    return tf.nn.conv2d(tf.pad(x, [[0, 0], pad, pad, [0, 0]], mode="REFLECT"), filters, 1, "VALID")


def _halved(x: tf.Tensor) -> tf.Tensor:
    """Means of 2x2 pixels; an odd last row or column is left out."""
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")


@functools.lru_cache
def _weights(channels: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The filters of both layers, for each scale: float32 [5, 5, channels, 16] and [3, 3, 16, 16]."""
    generator = np.random.PCG64(_SEED)
    return [
        (_filters(generator, _CONTRAST_SIZE, channels), _filters(generator, _TEXTURE_SIZE, _FILTERS))
        for _ in range(_SCALES)
    ]


def _filters(generator: np.random.PCG64, size: int, channels: int) -> np.ndarray:
    shape = (size, size, channels, _FILTERS)
    # NumPy promises that the integers of PCG64 stay the same, but not the numbers that it makes of them.
    integers = generator.random_raw(2 * math.prod(shape)).reshape(2, -1)
    uniform = ((integers >> 11) + 0.5) / 2.0**53  # in (0, 1)
    normal = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])
    filters = normal.reshape(shape)
    filters -= filters.mean(axis=(0, 1))  # of each channel, so that a constant image has no response
    return (filters / np.sqrt(np.square(filters).sum(axis=(0, 1, 2)))).astype(np.float32)
