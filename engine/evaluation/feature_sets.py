"""FID and KID between what the networks made of a split and the real images of the other domain."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np
import tensorflow as tf

from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.kernel_distance import FeatureSample, kernel_distance
from engine.evaluation.picture_scale import PictureScale
from engine.feature_extractor import FeatureExtractor, FeatureNetwork

DISTANCES = ("kid", "fid")
"""Names of the distances; both are 0 for equal distributions, and lower is better."""


class FeatureSet:
    """Features of a set of images, added batch by batch in bounded memory."""

    def __init__(self) -> None:
        self._moments: FeatureMoments | None = None
        self._sample = FeatureSample()

    @property
    def count(self) -> int:
        """Number of images."""
        return self._sample.count

    def add(self, features: np.ndarray) -> None:
        """Adds images.

        Args:
          features: float32 [B, D].
        """
        if self._moments is None:
            self._moments = FeatureMoments(features.shape[1])
        self._moments.add(features)
        self._sample.add(features)

    def distances(self, other: FeatureSet) -> dict[str, float]:
        """KID and FID to another set; empty if one of them has fewer than two images."""
        if min(self.count, other.count) < 2:
            return {}
        assert self._moments is not None and other._moments is not None, "a set with images has moments"
        return {
            "kid": kernel_distance(self._sample.rows(), other._sample.rows()).value,
            "fid": frechet_distance(self._moments, other._moments),
        }


class Features:
    """Computes the features of images.

    Args:
      extractor: builds the network, at the first call.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._network: FeatureNetwork | None = None

    @property
    def identity(self) -> str:
        """Names the extractor."""
        return self._extractor.identity

    def of(self, images: tf.Tensor, scale: PictureScale) -> np.ndarray:
        """Images [B, H, W, C] of a scale -> float32 [B, D]."""
        if self._network is None:
            self._network = self._extractor.build()
        return self._compute(images, scale).numpy()

    @tf.function(autograph=False, reduce_retracing=True)
    def _compute(self, images: tf.Tensor, scale: PictureScale) -> tf.Tensor:
        assert self._network is not None, "`of` builds it"
        return self._network(images, scale.value_range)


class DistanceCollector:
    """Distances between translations and real images of a split, by direction.

    Args:
      features: computes the features.
      real: sets of real images of this split that are known from an earlier pass, by direction. They get the
        sets of this pass at its end.
    """

    def __init__(self, features: Features, real: MutableMapping[str, FeatureSet]) -> None:
        self._features = features
        self._known = real
        self._made: dict[str, FeatureSet] = {}
        self._real: dict[str, FeatureSet] = {}

    def add(self, way: str, made: tf.Tensor, real: tf.Tensor, scale: PictureScale) -> None:
        """Adds a batch.

        Args:
          way: direction, "" or "back_".
          made: translations [B, H, W, C].
          real: images of the domain of the translations, which need not correspond to them.
          scale: of both.
        """
        self._made.setdefault(way, FeatureSet()).add(self._features.of(made, scale))
        if way not in self._known:
            self._real.setdefault(way, FeatureSet()).add(self._features.of(real, scale))

    def results(self) -> dict[str, float]:
        """By name, such as "kid" and "back_kid". The pass is over then."""
        self._known.update(self._real)
        return {
            f"{way}{name}": distance
            for way, made in self._made.items()
            for name, distance in made.distances(self._known[way]).items()
        }
