"""Quality of a run's pictures over a whole split, beside two baselines that need no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from data import imaging
from data.imaging.metrics import METRICS
from engine.errors import ConfigurationError
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.input_pipeline.pictures import to_picture
from engine.task import Task
from engine.training_data import TrainingData

SMALLEST_SIDE = 11
"""The SSIM window, in pixels."""

EVALUATION_BATCH_PER_REPLICA = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over the images of a split, each computed for one image and then averaged.

    Args:
      examples: images evaluated.
      model: of the translations, by metric name; empty where inputs and targets do not correspond.
      baselines: by baseline name, then metric name; likewise.
      reconstructions: by name (`Task.reconstructions`), then metric name.
    """

    examples: int
    model: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    reconstructions: Mapping[str, Mapping[str, float]]

    @property
    def metrics(self) -> dict[str, float]:
        """All that was measured of the networks, reconstructions with their names before the metric's."""
        return dict(self.model) | {
            f"{name}_{metric}": value
            for name, means in self.reconstructions.items()
            for metric, value in means.items()
        }


class Evaluator:
    """Evaluates the networks of a task on whole splits, sharded over the replicas.

    Args:
      task: whose `translate` and `reconstructions` make the pictures.
      strategy: over whose replicas they are made.
      data: `evaluation(split)` gives "input" and "target", float [B, H, W, C] in [-1, 1], of its colour
        space, and whatever else floating the task's `translate` takes; what is measured is RGB.
      networks: by name; their values at the time of each evaluation count.

    Raises:
      ConfigurationError: the pictures are too small for the metrics.
    """

    def __init__(
        self,
        *,
        task: Task,
        strategy: tf.distribute.Strategy,
        data: TrainingData,
        networks: Mapping[str, keras.Model],
    ):
        height, width, _ = data.example_spec["target"].shape
        if min(height, width) < SMALLEST_SIDE:
            raise ConfigurationError(
                f"CROP_SIZE: pictures of {height}x{width} pixels are too small to evaluate (SSIM needs "
                f"{SMALLEST_SIDE} a side); raise CROP_SIZE"
            )
        self._task = task
        self._strategy = strategy
        self._data = data
        self._networks = networks
        self._several_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self._batch = EVALUATION_BATCH_PER_REPLICA * strategy.num_replicas_in_sync

    def evaluate(self, split: str, *, baselines: bool = False) -> Evaluation:
        """One pass over the split; every image counts once, whatever the number of replicas.

        Args:
          baselines: also measure "input" (the input taken for the output, where the channels agree;
            smaller ones enlarged, bicubic) and "mean target" (the mean training target for every
            image), which costs a pass over the training split.
        """
        examples, translations, reconstructions = 0, _Measured(), _Measured()
        mean_target = self._mean_target() if baselines and self._data.is_paired else None
        for pictures, reconstructed in self._pictures(split):
            inputs, targets = pictures["input"], pictures["target"]
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

    def _pictures(self, split: str) -> Iterator[tuple[dict, dict]]:
        """Of every example of the split, in its order, uint8 [B, H, W, C].

        The pictures "input", "output" and "target"; reconstructions: name -> (made, original).
        """
        batches = self._data.evaluation(split, batch=self._batch).map(
            lambda example: {name: x for name, x in example.items() if x.dtype.is_floating}
        )
        if self._several_workers:  # each reads the whole split and keeps its part
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
            batches = batches.with_options(options)
        with reraise_record_errors(self._data, split):
            for batch in self._strategy.experimental_distribute_dataset(batches):
                yield self._translate(batch)

    @tf.function(autograph=False, reduce_retracing=True)
    def _translate(self, batch):
        per_replica = self._strategy.run(
            tf.autograph.experimental.do_not_convert(self._translate_replica), args=(batch,)
        )
        return tf.nest.map_structure(self._gather, per_replica)

    def _translate_replica(self, batch):
        rows = tf.shape(batch["input"])[0]
        # The last batch may leave a replica without a row, which kernels do not reliably take.
        padded = {
            name: tf.pad(values, [[0, tf.maximum(0, 1 - rows)]] + [[0, 0]] * (values.shape.rank - 1))
            for name, values in batch.items()
        }
        pictures = {"input": self._task.input_picture(padded), "target": padded["target"]}
        if self._data.is_paired:
            pictures["output"] = self._task.translate(self._networks, padded)
        reconstructed = dict(self._task.reconstructions(self._networks, padded))
        return tf.nest.map_structure(lambda x: to_picture(self._data, x[:rows]), (pictures, reconstructed))

    def _gather(self, values):
        if self._several_workers:
            # Collectives take no uint8.
            wider = self._strategy.run(lambda x: tf.cast(x, tf.int32), args=(values,))
            return tf.cast(self._strategy.gather(wider, axis=0), tf.uint8)
        return tf.concat(self._strategy.experimental_local_results(values), axis=0)

    def _mean_target(self) -> tf.Tensor:
        """The mean target of the training split at the evaluation's geometry: uint8 [H, W, C]."""
        total, examples = 0.0, 0
        with reraise_record_errors(self._data, "train"):
            for batch in self._data.evaluation("train", batch=32):
                grey_levels = tf.cast(to_picture(self._data, batch["target"]), tf.float64)
                total += tf.reduce_sum(grey_levels, axis=0)
                examples += int(grey_levels.shape[0])
        return tf.cast(tf.round(total / examples), tf.uint8)


def _enlarged(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """uint8 inputs at the size of the targets, [B, H, W, C]."""
    height, width = targets.shape[1:3]
    if inputs.shape[1:3] == targets.shape[1:3]:
        return inputs
    levels = imaging.enlarge(tf.cast(inputs, tf.float32), height=height, width=width)
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


@tf.function(autograph=False, reduce_retracing=True)
def _measure_tensors(outputs, targets):
    return {name: metric(outputs, targets) for name, metric in METRICS.items()}


class _Measured:
    """Metrics of the images of several guesses, batch after batch."""

    def __init__(self):
        self._rows: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, guess: str, made: tf.Tensor, original: tf.Tensor) -> None:
        with tf.device("CPU:0"):  # accelerators may lack float64
            row = {name: value.numpy() for name, value in _measure_tensors(made, original).items()}
        self._rows.setdefault(guess, []).append(row)

    def means(self) -> dict[str, dict[str, float]]:
        return {
            guess: {name: float(np.mean(np.concatenate([row[name] for row in rows]))) for name in METRICS}
            for guess, rows in self._rows.items()
        }


def table(evaluation: Evaluation, *, split: str) -> str:
    """The evaluation as text, one row a guess."""
    columns = {"model": evaluation.model} if evaluation.model else {}
    columns |= {f"baseline: {name}": means for name, means in evaluation.baselines.items()}
    columns |= evaluation.reconstructions
    if not columns:
        return f"{split}: {evaluation.examples} images, of two domains: there is nothing to compare with"
    width = max(len(name) for name in columns)
    lines = [
        f"{split}: {evaluation.examples} images, on [0, 255], per image and averaged",
        f"{'':{width}}  {'MAE':>8}  {'MSE':>9}  {'RMSE':>8}  {'PSNR dB':>8}  {'SSIM':>7}",
    ]
    for name, m in columns.items():
        lines.append(
            f"{name:{width}}  {m['mae']:8.2f}  {m['mse']:9.1f}  {m['rmse']:8.2f}  {m['psnr_db']:8.2f}"
            f"  {m['ssim']:7.4f}"
        )
    return "\n".join(lines)
