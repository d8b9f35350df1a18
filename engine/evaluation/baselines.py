"""Baselines that need no training, for comparison with the networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from data import imaging
from data.roles import INPUT, TARGET
from engine.evaluation.kept_statistics import KeptStatistics
from engine.evaluation.picture_scale import PictureScale
from engine.evaluation.results import ImageMetrics
from engine.evaluation.split_translator import FORWARD, TranslatedBatch
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.training_data import TrainingData

BASELINES = INPUT_ITSELF, MEAN_TARGET = ("input", "mean target")
"""The input itself, where the channels agree (enlarged by bicubic interpolation where it is smaller); and the
mean training target for every image, which takes a pass over the training split."""

_IDENTICAL = "identical"


class Baselines:
    """Makes the images of baselines.

    Args:
      names: those of `BASELINES` that are wanted.
      data: the mean target is of its training split.
      split: that is evaluated.
      scale: of the targets.
      metrics: names of what is measured.
      kept: those of `names` that depend on the data set only: they are measured once for all runs.
    """

    def __init__(
        self,
        names: Collection[str],
        *,
        data: TrainingData,
        split: str,
        scale: PictureScale,
        metrics: Collection[str] = (),
        kept: Collection[str] = (),
    ):
        self._split = split
        self._scale = scale
        self._metrics = metrics
        self._to_keep = kept
        self._kept = KeptStatistics(data)
        self._known = {name: found for name in names if (found := self._load(name)) is not None}
        self._names = [name for name in names if name not in self._known]
        self._mean_target = _mean_target(data, scale) if MEAN_TARGET in self._names else None

    def images(self, batch: TranslatedBatch) -> dict[str, tf.Tensor]:
        """By name of the baseline, [B, H, W, C] of the targets' scale; none that was measured before."""
        _, targets = batch.translations[FORWARD]
        images = {}
        if INPUT_ITSELF in self._names and INPUT in batch.inputs:
            images[INPUT_ITSELF] = _enlarged(batch.inputs[INPUT], targets, self._scale)
        if self._mean_target is not None:
            images[MEAN_TARGET] = tf.broadcast_to(self._mean_target, tf.shape(targets))
        return images

    def results(self, measured: Mapping[str, ImageMetrics]) -> dict[str, ImageMetrics]:
        """The metrics of all baselines, by name. The pass is over then.

        Args:
          measured: those of `images`.
        """
        for name, images in measured.items():
            if name in self._to_keep:
                arrays = {**images.values, _IDENTICAL: np.array(images.identical)}
                self._kept.save(self._split, self._what(name), arrays)
        found = {**self._known, **measured}
        return {name: found[name] for name in BASELINES if name in found}

    def load_kept(self) -> dict[str, ImageMetrics]:
        """The metrics that an earlier evaluation of any run has kept, by name of the baseline."""
        return {name: kept for name in self._to_keep if (kept := self._load(name)) is not None}

    def _load(self, name: str) -> ImageMetrics | None:
        arrays = self._kept.load(self._split, self._what(name)) if name in self._to_keep else None
        if arrays is None:
            return None
        return ImageMetrics(identical=int(arrays.pop(_IDENTICAL)), values=arrays)

    def _what(self, name: str) -> str:
        return f"{', '.join(self._metrics)} of the baseline {name} on {self._scale} in {self._scale.dtype}"


def _mean_target(data: TrainingData, scale: PictureScale) -> tf.Tensor:
    """The mean target of the training split, as prepared for evaluation: [H, W, C] of its scale."""
    kept, what = KeptStatistics(data), f"mean target on {scale} in {scale.dtype}"
    found = kept.load("train", what)
    if found is None:
        total, examples = tf.constant(0.0, tf.float64), 0
        with reraise_record_errors(data, "train"):
            for batch in data.evaluation("train", batch=32):
                pictures = tf.cast(scale.convert(data, batch[TARGET]), tf.float64)
                total += tf.reduce_sum(pictures, axis=0)
                examples += int(pictures.shape[0])
        found = {"mean": (total / examples).numpy()}
        kept.save("train", what, found)
    mean = tf.constant(found["mean"])
    return tf.cast(mean if scale.dtype == "float32" else tf.round(mean), scale.dtype)


def _enlarged(inputs: tf.Tensor, targets: tf.Tensor, scale: PictureScale) -> tf.Tensor:
    """Inputs at the size of the targets, [B, H, W, C] of the scale."""
    height, width = targets.shape[1:3]
    if inputs.shape[1:3] == targets.shape[1:3]:
        return inputs
    low, high = scale.value_range
    enlarged = imaging.enlarge(tf.cast(inputs, tf.float32), height=height, width=width)
    if inputs.dtype.is_integer:
        enlarged = tf.floor(enlarged + 0.5)
    return tf.cast(tf.clip_by_value(enlarged, low, high), inputs.dtype)
