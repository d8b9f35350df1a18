"""Image metrics of a run over a whole split, and of two baselines that need no training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from data import imaging
from data.imaging.metrics import METRICS
from data.roles import INPUT, TARGET
from engine.distribution.devices import Devices
from engine.distribution.strategy_run import gather_rows
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.input_pipeline.pictures import to_picture
from engine.task import Task
from engine.training_data import TrainingData

MIN_IMAGE_SIZE = 11
"""The SSIM window, in pixels: smaller images have no SSIM."""

EVALUATION_BATCH_PER_REPLICA = 8
"""Examples that a replica translates at once."""

Pictures = dict[str, tf.Tensor]
Reconstructions = dict[str, tuple[tf.Tensor, tf.Tensor]]
_Batch = tuple[Pictures, Reconstructions, tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a split. Each is computed for every image by itself, then averaged over the images.

    Attributes:
      examples: images evaluated.
      model: metrics of the translations, by name; empty for unpaired data.
      baselines: metrics of each baseline, by name of the baseline; empty for unpaired data.
      reconstructions: metrics of each of the task's reconstructions, by its name.
    """

    examples: int
    model: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    reconstructions: Mapping[str, Mapping[str, float]]

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics of the networks; those of a reconstruction begin with its name."""
        return dict(self.model) | {
            f"{name}_{metric}": value
            for name, means in self.reconstructions.items()
            for metric, value in means.items()
        }


class Evaluator:
    """Evaluates the networks of a task on whole splits, sharded over the replicas.

    Args:
      task: its `translate` and `reconstructions` make the images.
      devices: of the run; its replicas make them.
      data: `evaluation(split)` yields "input" and "target", float [B, H, W, C] in [-1, 1] in the data's
        colour space, and any other floating-point values that `translate` takes. Metrics are of RGB.
      networks: by name; `evaluate` uses their values at that time.

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
    ):
        height, width, _ = data.example_spec[TARGET].shape
        if min(height, width) < MIN_IMAGE_SIZE:
            raise ConfigurationError(
                f"CROP_SIZE: images of {height}x{width} pixels are too small to evaluate (SSIM needs "
                f"{MIN_IMAGE_SIZE}x{MIN_IMAGE_SIZE}); raise CROP_SIZE"
            )
        self._task = task
        self._devices = devices
        self._data = data
        self._networks = networks
        self._batch = EVALUATION_BATCH_PER_REPLICA * devices.replicas

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
        measured = tuple(METRICS) if self._data.is_paired else ()
        return measured + tuple(f"{name}_{metric}" for name in reconstructions for metric in METRICS)

    def evaluate(self, split: str, *, baselines: bool = False) -> Evaluation:
        """Evaluates one pass over a split. Every image counts once, on any number of replicas.

        Args:
          split: its name.
          baselines: also evaluate "input" (the input itself, where the channels agree; enlarged by
            bicubic interpolation where it is smaller) and "mean target" (the mean training target for
            every image), which takes a pass over the training split.

        Raises:
          NonFiniteOutputError: names the first example for which a network's output is not finite.
        """
        examples, translations, reconstructions = 0, _MetricMeans(), _MetricMeans()
        mean_target = self._mean_target() if baselines and self._data.is_paired else None
        for pictures, reconstructed, is_finite in self._pictures(split):
            if not np.all(is_finite):
                example = examples + int(np.argmin(is_finite))
                raise NonFiniteOutputError(f"example {example} of split {split!r}, counted from 0")
            inputs, targets = pictures[INPUT], pictures[TARGET]
            examples += int(inputs.shape[0])
            for name, (made, original) in reconstructed.items():
                reconstructions.add(name, made, original)
            if self._data.is_paired:
                translations.add("model", pictures["output"], targets)
            if mean_target is not None:
                if inputs.shape[-1] == targets.shape[-1]:
                    translations.add("input", _enlarged(inputs, targets), targets)
                translations.add("mean target", tf.broadcast_to(mean_target, targets.shape), targets)
        means = translations.means()
        return Evaluation(
            examples=examples,
            model=means.pop("model", {}),
            baselines=means,
            reconstructions=reconstructions.means(),
        )

    def _pictures(self, split: str) -> Iterator[_Batch]:
        """Yields batches of the split in order, as uint8 [B, H, W, C].

        Each is the images "input", "output" and "target", by name the pairs (reconstruction, original), and
        whether all that the networks made of an example is finite: uint8 [B], 0 or 1.
        """
        batches = self._data.evaluation(split, batch=self._batch).map(
            lambda example: {name: x for name, x in example.items() if x.dtype.is_floating}
        )
        if self._devices.is_multi_worker:  # each worker reads the whole split and keeps its own examples
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
            batches = batches.with_options(options)
        with reraise_record_errors(self._data, split):
            for batch in self._devices.strategy.experimental_distribute_dataset(batches):
                yield self._translate(batch)

    @tf.function(autograph=False, reduce_retracing=True)
    def _translate(self, batch: Mapping[str, tf.Tensor]) -> _Batch:
        per_replica = self._devices.strategy.run(
            tf.autograph.experimental.do_not_convert(self._translate_replica), args=(batch,)
        )
        return tf.nest.map_structure(lambda x: gather_rows(self._devices, x), per_replica)

    def _translate_replica(self, batch: Mapping[str, tf.Tensor]) -> _Batch:
        rows = tf.shape(batch[INPUT])[0]
        # The last batch may leave a replica without an example; some oneDNN kernels fail on empty batches.
        # oneDNN stays on all the same: it is 5 times as fast as TensorFlow's own CPU kernels.
        padded = {
            name: tf.pad(values, [[0, tf.maximum(0, 1 - rows)]] + [[0, 0]] * (values.shape.rank - 1))
            for name, values in batch.items()
        }
        pictures = {INPUT: self._task.input_picture(padded), TARGET: padded[TARGET]}
        if self._data.is_paired:
            pictures["output"] = self._task.translate(self._networks, padded)
        reconstructed = dict(self._task.reconstructions(self._networks, padded))
        made = [images for images, _ in reconstructed.values()]
        if "output" in pictures:
            made.append(pictures["output"])
        is_finite = tf.ones([tf.shape(padded[INPUT])[0]], tf.bool)
        for images in made:  # before they become whole numbers, which hide NaN
            is_finite &= tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])  # [B]
        pictures = {role: to_picture(self._data, x[:rows], role=role) for role, x in pictures.items()}
        reconstructed = tf.nest.map_structure(lambda x: to_picture(self._data, x[:rows]), reconstructed)
        return pictures, reconstructed, tf.cast(is_finite[:rows], tf.uint8)

    def _mean_target(self) -> tf.Tensor:
        """The mean target of the training split, prepared as for evaluation: uint8 [H, W, C]."""
        total, examples = 0.0, 0
        with reraise_record_errors(self._data, "train"):
            for batch in self._data.evaluation("train", batch=32):
                grey_levels = tf.cast(to_picture(self._data, batch[TARGET]), tf.float64)
                total += tf.reduce_sum(grey_levels, axis=0)
                examples += int(grey_levels.shape[0])
        return tf.cast(tf.round(total / examples), tf.uint8)


def table(evaluation: Evaluation, *, split: str) -> str:
    """The evaluation as a text table: the model, its baselines and its reconstructions, one in each row."""
    rows = {"model": evaluation.model} if evaluation.model else {}
    rows |= {f"baseline: {name}": means for name, means in evaluation.baselines.items()}
    rows |= evaluation.reconstructions
    if not rows:
        return f"{split}: {evaluation.examples} images, unpaired: there is no target to compare with"
    width = max(len(name) for name in rows)
    lines = [
        f"{split}: {evaluation.examples} images; metrics on [0, 255], averaged over the images",
        f"{'':{width}}  {'MAE':>8}  {'MSE':>9}  {'RMSE':>8}  {'PSNR dB':>8}  {'SSIM':>7}",
    ]
    for name, m in rows.items():
        lines.append(
            f"{name:{width}}  {m['mae']:8.2f}  {m['mse']:9.1f}  {m['rmse']:8.2f}  {m['psnr_db']:8.2f}"
            f"  {m['ssim']:7.4f}"
        )
    return "\n".join(lines)


def _enlarged(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """uint8 inputs at the size of the targets, [B, H, W, C]."""
    height, width = targets.shape[1:3]
    if inputs.shape[1:3] == targets.shape[1:3]:
        return inputs
    levels = imaging.enlarge(tf.cast(inputs, tf.float32), height=height, width=width)
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


@tf.function(autograph=False, reduce_retracing=True)
def _metrics_per_image(outputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
    return {name: metric(outputs, targets) for name, metric in METRICS.items()}


class _MetricMeans:
    """Averages metrics over all images, for each of several methods that make them."""

    def __init__(self) -> None:
        self._batches: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, method: str, outputs: tf.Tensor, targets: tf.Tensor) -> None:
        with tf.device("CPU:0"):  # accelerators may lack float64
            values = {name: x.numpy() for name, x in _metrics_per_image(outputs, targets).items()}
        self._batches.setdefault(method, []).append(values)

    def means(self) -> dict[str, dict[str, float]]:
        return {
            method: {name: float(np.mean(np.concatenate([x[name] for x in batches]))) for name in METRICS}
            for method, batches in self._batches.items()
        }
