"""Collects the metrics of every image, for each of several ways to make the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from data.imaging.metrics import identical
from engine.evaluation.image_function import ImageFunction
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.results import ImageMetrics

_IDENTICAL = "identical"

Metric = Callable[..., tf.Tensor]
"""Function of two batches [B, H, W, C] and their value range that returns float64 [B]."""


class ImageMeasurement:
    """Computes the metrics of batches of images; traced once for each shape.

    Args:
      metrics: to compute, by name.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._traced = ImageFunction(self._measure)

    def __call__(
        self, images: tf.Tensor, references: tf.Tensor, scale: PictureScale
    ) -> dict[str, np.ndarray]:
        """Measures a batch.

        Args:
          images: [B, H, W, C] of the scale.
          references: likewise.
          scale: of both.

        Returns:
          [B] by name of the metric, and "identical".
        """
        with tf.device("CPU:0"):  # accelerators may lack float64
            return {name: x.numpy() for name, x in self._traced(images, references, scale=scale).items()}

    def _measure(
        self, images: tf.Tensor, references: tf.Tensor, *, scale: PictureScale
    ) -> dict[str, tf.Tensor]:
        # A whole dtype needs no check of the values against the range.
        value_range = None if scale == PictureScale() else scale.value_range
        measured = {name: metric(images, references, value_range) for name, metric in self._metrics.items()}
        return measured | {_IDENTICAL: identical(images, references, value_range)}


class MetricCollector:
    """Metrics of images that come in batches.

    Args:
      measure: computes them.
    """

    def __init__(self, measure: ImageMeasurement) -> None:
        self._measure = measure
        self._batches: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(
        self, name: str, images: tf.Tensor, references: tf.Tensor, scale: PictureScale
    ) -> dict[str, np.ndarray]:
        """Measures a batch; returns its metrics, [B] by name; none of an empty batch.

        Args:
          name: how the images were made.
          images: [B, H, W, C] of the scale.
          references: likewise.
          scale: of both.
        """
        if not images.shape[0]:  # some kernels fail on empty batches
            return {}
        values = self._measure(images, references, scale)
        self._batches.setdefault(name, []).append(values)
        return values

    def results(self) -> dict[str, ImageMetrics]:
        """What was measured so far, by name."""
        found = {}
        for name, batches in self._batches.items():
            values = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
            count = int(values.pop(_IDENTICAL).sum())
            found[name] = ImageMetrics(values=values, identical=count)
        return found
