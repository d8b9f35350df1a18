"""The interfaces of networks that measure images: feature extractors for FID and KID, and learned metrics.

`engine.evaluation.random_features` and `models.application_features` have implementations. A new one is a
subclass with two members.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

NOT_COMPARABLE = (
    "FID and KID of different extractors are not comparable; published figures are those of TensorFlow's "
    "Inception network of 2015, which none of these is"
)
"""Says, beside every figure that is shown, what it cannot be compared with."""


class FeatureNetwork(Protocol):
    """Turns images into features."""

    def __call__(self, images: tf.Tensor, value_range: tuple[float, float] | None = None) -> tf.Tensor:
        """Computes the features of each image by itself; also in a `tf.function`.

        Args:
          images: [B, H, W, C]; H, W and C static.
          value_range: lowest and highest possible value; None for that of the dtype (uint8, uint16).

        Returns:
          float32 [B, D].

        Raises:
          TypeError: floats come without a range.
          ValueError: the images have the wrong shape, or too few pixels.
        """


class LearnedMetric(Protocol):
    """Settings of a metric with weights, such as `models.lpips.Lpips`."""

    def build(self) -> Callable[..., tf.Tensor]:
        """Reads the weights.

        Returns:
          Function of two batches [B, H, W, C] and their value range that returns [B].

        Raises:
          ConfigurationError: the weights cannot be read.
        """


class FeatureExtractor(abc.ABC):
    """Settings of a feature extractor. `build` may read or download weights; constructing it does not."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Names the extractor in tables, and in the key under which features are kept.

        Two extractors of one identity compute the same features.
        """

    @abc.abstractmethod
    def build(self) -> FeatureNetwork:
        """Builds the network; call it once, outside of a `tf.function`.

        Raises:
          ConfigurationError: the weights cannot be read.
        """
