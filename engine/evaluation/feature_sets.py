"""FID and KID between what the networks made of a split and the real images of the other domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.evaluation.frechet_distance import FeatureMoments, frechet_distance
from engine.evaluation.image_function import ImageFunction
from engine.evaluation.kept_statistics import KeptStatistics
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

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restores what `arrays` returned."""
        made = cls()
        made._moments = FeatureMoments(len(arrays["mean"]))
        made._moments.count = int(arrays["count"])
        made._moments.mean, made._moments.scatter = arrays["mean"], arrays["scatter"]
        made._sample.add(arrays["rows"])
        return made

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the distances need, by name; empty without images."""
        if self._moments is None:
            return {}
        moments = self._moments
        return {
            "count": np.array(moments.count),
            "mean": moments.mean,
            "scatter": moments.scatter,
            "rows": self._sample.rows(),
        }

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
      extractor: builds the network, in `prepare`.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._network: FeatureNetwork | None = None
        self._traced = ImageFunction(self._compute)

    @property
    def identity(self) -> str:
        """Names the extractor."""
        return self._extractor.identity

    def prepare(self, shape: tf.TensorShape, scale: PictureScale) -> None:
        """Builds the network, and checks that it takes images.

        Args:
          shape: of an image, [H, W, C].
          scale: of the images.

        Raises:
          ConfigurationError: the weights cannot be read, or the images are too small, or have channels that
            the network does not take.
        """
        if self._network is None:
            self._network = self._extractor.build()
        spec = tf.TensorSpec([None, *shape], scale.dtype)
        try:
            self._traced.trace(spec, scale=scale)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"KID and FID: the features of these images cannot be computed ({error}); choose another "
                "Experiment.feature_extractor, or None to measure neither"
            ) from error

    def of(self, images: tf.Tensor, scale: PictureScale) -> np.ndarray:
        """Images [B, H, W, C] of a scale -> float32 [B, D]; `prepare` comes before it."""
        return self._traced(images, scale=scale).numpy()

    def _compute(self, images: tf.Tensor, *, scale: PictureScale) -> tf.Tensor:
        assert self._network is not None, "`prepare` builds it"
        return self._network(images, scale.value_range)


class DistanceCollector:
    """Distances between translations and real images of a split, by direction.

    Args:
      features: computes the features.
      split: that is evaluated.
      kept: keeps the features of its real images.
      scales: of the images, by direction: "" or "back_", which stands before the names of the distances.
    """

    def __init__(
        self,
        features: Features,
        *,
        split: str,
        kept: KeptStatistics,
        scales: Mapping[str, PictureScale],
    ) -> None:
        self._features = features
        self._split = split
        self._kept = kept
        self._scales = scales
        self._made = {way: FeatureSet() for way in scales}
        self._real = {way: FeatureSet() for way in scales}
        self._known: dict[str, FeatureSet] = {}
        for way in scales:
            if arrays := kept.load(split, self._what(way)):
                self._known[way] = FeatureSet.from_arrays(arrays)

    def add(self, way: str, made: tf.Tensor, real: tf.Tensor) -> None:
        """Adds a batch.

        Args:
          way: direction.
          made: translations [B, H, W, C].
          real: images of the domain of the translations, which need not correspond to them.
        """
        if made.shape[0]:  # some kernels fail on empty batches
            self._made[way].add(self._features.of(made, self._scales[way]))
        if way not in self._known and real.shape[0]:
            self._real[way].add(self._features.of(real, self._scales[way]))

    def results(self) -> dict[str, float]:
        """By name, such as "kid" and "back_kid". The pass is over then."""
        distances: dict[str, float] = {}
        for way, made in self._made.items():
            if way not in self._known:
                self._known[way] = self._real[way]
                self._kept.save(self._split, self._what(way), self._real[way].arrays())
            distances |= {f"{way}{name}": x for name, x in made.distances(self._known[way]).items()}
        return distances

    def _what(self, way: str) -> str:
        scale = self._scales[way]
        return f"{way}features by {self._features.identity} of images on {scale} in {scale.dtype}"
