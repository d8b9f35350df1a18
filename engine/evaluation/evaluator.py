"""Image metrics of a run over a whole split, and of two baselines that need no training."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from data.imaging.metric_names import LEARNED_METRIC
from data.imaging.metrics import METRICS
from data.roles import INPUT, TARGET
from engine.distribution.devices import Devices
from engine.errors import ConfigurationError
from engine.evaluation import random_features
from engine.evaluation.baselines import BASELINES, MEAN_TARGET, Baselines
from engine.evaluation.contact_sheet import ORDER_BY, Extremes, ShownImage
from engine.evaluation.feature_sets import DISTANCES, DistanceCollector, Features
from engine.evaluation.image_metrics import ImageMeasurement, MetricCollector
from engine.evaluation.kept_statistics import KeptStatistics
from engine.evaluation.metric_choice import check_shapes, luma_border, metrics_of
from engine.evaluation.picture_scale import to_8_bits
from engine.evaluation.random_features import RandomFeatures
from engine.evaluation.results import Evaluation
from engine.evaluation.split_translator import BACK, FORWARD, SplitTranslator, TranslatedBatch
from engine.feature_extractor import FeatureExtractor, LearnedMetric
from engine.task import Task
from engine.training_data import TrainingData

MIN_IMAGE_SIZE = 11
"""The SSIM window, in pixels: smaller images have no SSIM."""

_MODEL = "model"


class Evaluator:
    """Evaluates the networks of a task on whole splits, sharded over the replicas.

    Args:
      task: its `translate`, `translate_back` and `reconstructions` make the images.
      devices: of the run; its replicas make them.
      data: `evaluation(split)` yields "input" and "target", float [B, H, W, C] in [-1, 1] in the data's
        colour space, and any other floating-point values that `translate` takes. Metrics are of RGB.
      networks: by name; `evaluate` uses their values at that time.
      extractor: of the features that KID and FID compare; None measures neither. The default one needs images
        of at least 16 pixels, and measures neither of smaller ones.
      more_metrics: names of further metrics, of `data.imaging.metric_names.MORE_METRICS`.
      lpips: also measures "lpips"; its weights are read at first use.
      dropout: see `SplitTranslator`.
      mode: says with which weights and in which mode the networks compute, for tables.

    Raises:
      ConfigurationError: the images are too small for the metrics.
    """

    def __init__(
        self,
        *,
        task: Task,
        devices: Devices,
        data: TrainingData,
        networks: Mapping[str, keras.Model],
        extractor: FeatureExtractor | None = None,
        more_metrics: Sequence[str] = (),
        lpips: LearnedMetric | None = None,
        dropout: bool = False,
        mode: str = "",
    ):
        height, width, _ = data.example_spec[TARGET].shape
        if min(height, width) < MIN_IMAGE_SIZE:
            raise ConfigurationError(
                f"CROP_SIZE: images of {height}x{width} pixels are too small to evaluate (SSIM needs "
                f"{MIN_IMAGE_SIZE}x{MIN_IMAGE_SIZE}); raise CROP_SIZE"
            )
        self._task = task
        self._data = data
        self._networks = networks
        self._more_metrics = tuple(more_metrics)
        self._lpips = lpips
        self._mode = mode
        self._translator = SplitTranslator(
            task=task, devices=devices, data=data, networks=networks, dropout=dropout
        )
        if isinstance(extractor, RandomFeatures) and min(height, width) < random_features.MIN_IMAGE_SIZE:
            extractor = None
        self._features = None if extractor is None else Features(extractor)

    @property
    def image_metric_names(self) -> tuple[str, ...]:
        """Names of the metrics of the translations' images; none if targets do not correspond to inputs."""
        if not self._data.is_paired:
            return ()
        learned = () if self._lpips is None else (LEARNED_METRIC,)
        return (*metrics_of(self._data, self._more_metrics), *learned)

    @functools.cached_property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics of each evaluation, as in `Evaluation.metrics`. Traces the reconstructions."""
        example = {
            name: tf.TensorSpec([1, *spec.shape], spec.dtype)
            for name, spec in self._data.example_spec.items()
            if spec.dtype.is_floating
        }
        traced = tf.function(
            lambda batch: dict(self._task.reconstructions(self._networks, batch)), autograph=False
        )
        reconstructions = traced.get_concrete_function(example).structured_outputs
        metrics = metrics_of(self._data, self._more_metrics)
        names = [*metrics, *([] if self._lpips is None else [LEARNED_METRIC])]
        measured = self.image_metric_names
        measured += tuple(f"{name}_{metric}" for name in reconstructions for metric in names)
        distances = DISTANCES if self._features is not None else ()
        return measured + tuple(f"{way}{name}" for way in self._ways for name in distances)

    @functools.cached_property
    def measurement(self) -> ImageMeasurement:
        """Computes the metrics of images.

        Raises:
          ConfigurationError: the weights of one cannot be read, or one cannot measure the images of the data
            set.
        """
        metrics = metrics_of(self._data, self._more_metrics)
        if self._lpips is not None:
            metrics[LEARNED_METRIC] = self._lpips.build()
        roles = [TARGET] if self._data.is_paired else []
        if type(self._task).reconstructions is not Task.reconstructions:
            roles = [INPUT, TARGET]
        for name in [name for name in metrics if name not in METRICS]:
            for role in roles:
                shape = self._data.example_spec[role].shape
                check_shapes(name, metrics[name], shape, self._translator.scales[role])
        return ImageMeasurement(metrics)

    def prepare(self) -> None:
        """Reads the weights that metrics need, and checks the metrics. `evaluate` does it otherwise.

        Raises:
          ConfigurationError: weights cannot be read, or a metric or the feature extractor cannot measure the
            images of the data set.
        """
        _ = self.measurement
        if self._features is not None:
            for role in self._ways.values():
                shape = self._data.example_spec[role].shape
                self._features.prepare(shape, self._translator.scales[role])

    @property
    def _kept_baselines(self) -> tuple[str, ...]:
        """Baselines whose metrics depend on the data set only: weights in files may change."""
        if self._lpips is not None:
            return ()
        # A task may show another picture as its input.
        return BASELINES if type(self._task).input_picture is Task.input_picture else (MEAN_TARGET,)

    @property
    def _ways(self) -> dict[str, str]:
        """The directions in which the task translates, with the role of what comes out."""
        return {FORWARD: TARGET} | ({BACK: INPUT} if self._task.translates_back else {})

    def evaluate(
        self, split: str, *, baselines: Collection[str] = (), extremes: Extremes | None = None
    ) -> Evaluation:
        """Evaluates one pass over a split. Every image counts once, on any number of replicas.

        Args:
          split: its name.
          baselines: those of `engine.evaluation.baselines.BASELINES` to evaluate too, if the data are paired.
          extremes: gets the translations, if the data are paired.

        Raises:
          ConfigurationError: as `prepare`.
          NonFiniteOutputError: names the first example for which a network's output is not finite.
        """
        self.prepare()
        names: list[str] = []
        collector = MetricCollector(self.measurement)
        scales = self._translator.scales
        wanted = baselines if self._data.is_paired else ()
        others = Baselines(
            wanted,
            data=self._data,
            split=split,
            scale=scales[TARGET],
            metrics=self.image_metric_names,
            kept=self._kept_baselines,
        )
        distances = None
        if self._features is not None:
            distances = DistanceCollector(
                self._features,
                split=split,
                kept=KeptStatistics(self._data),
                scales={way: scales[role] for way, role in self._ways.items()},
            )
        for batch in self._translator.batches(split):
            if self._data.is_paired:
                images, targets = batch.translations[FORWARD]
                found = collector.add(_MODEL, images, targets, scales[TARGET])
                if extremes is not None:
                    self._add_extremes(extremes, batch, found[ORDER_BY], first=len(names))
                for name, images in others.images(batch).items():
                    collector.add(name, images, targets, scales[TARGET])
            for name, pair in batch.reconstructions.items():
                collector.add(name, *pair, self._translator.scale_of_reconstruction(name))
            if distances is not None:
                for way, pair in batch.translations.items():
                    distances.add(way, *pair)
            names += batch.decoded_names()
        results = collector.results()
        measured = [name for name in BASELINES if name in results]
        return Evaluation(
            examples=len(names),
            split=split,
            names=tuple(names) if any(names) else (),
            value_range=scales[TARGET].value_range,
            translations=results.pop(_MODEL, None),
            baseline_images=others.results({name: results.pop(name) for name in measured}),
            reconstruction_images=results,
            distances={} if distances is None else distances.results(),
            extractor="" if self._features is None else self._features.identity,
            mode=self._mode,
            luma_border=luma_border(self._data),
        )

    def _add_extremes(
        self, extremes: Extremes, batch: TranslatedBatch, values: np.ndarray, *, first: int
    ) -> None:
        """Shows the examples of a batch to `extremes`; the first is at this position in the split."""
        names = batch.decoded_names()
        for row, value in enumerate(values):
            if extremes.takes(value):
                columns = self._columns(batch, row)
                image = ShownImage(value=float(value), example=first + row, name=names[row], columns=columns)
                extremes.add(image)

    def _columns(self, batch: TranslatedBatch, row: int) -> dict[str, np.ndarray]:
        scale = self._translator.scales[TARGET]
        output, target = (to_8_bits(x[row], scale).numpy() for x in batch.translations[FORWARD])
        return {"input": batch.shown[row].numpy(), "output": output, "target": target}
