"""Collects the metrics of every image, for each of several ways to make the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from data.imaging.metrics import METRICS, identical
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.results import ImageMetrics

Metric = Callable[..., tf.Tensor]
"""Function of two batches [B, H, W, C] and their value range that returns float64 [B]."""


class MetricCollector:
    """Metrics of images that come in batches.

    Args:
      metrics: to compute, by name.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS) -> None:
        self._metrics = metrics
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
        with tf.device("CPU:0"):  # accelerators may lack float64
            values = {key: x.numpy() for key, x in self._measure(images, references, scale).items()}
        self._batches.setdefault(name, []).append(values)
        return values

    def results(self) -> dict[str, ImageMetrics]:
        """What was measured so far, by name."""
        return {
            name: ImageMetrics(
                values={key: np.concatenate([batch[key] for batch in batches]) for key in self._metrics},
                identical=int(sum(batch["identical"].sum() for batch in batches)),
            )
            for name, batches in self._batches.items()
        }

    @tf.function(autograph=False, reduce_retracing=True)
    def _measure(self, images: tf.Tensor, references: tf.Tensor, scale: PictureScale) -> dict[str, tf.Tensor]:
        # A whole dtype needs no check of the values against the range.
        value_range = None if scale == PictureScale() else scale.value_range
        measured = {name: metric(images, references, value_range) for name, metric in self._metrics.items()}
        return measured | {"identical": identical(images, references, value_range)}
