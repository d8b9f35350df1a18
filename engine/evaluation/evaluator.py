"""Image metrics of a run over a whole split, and of two baselines that need no training."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data import imaging
from data.imaging.metrics import METRICS
from data.roles import INPUT, TARGET
from engine.distribution.devices import Devices
from engine.distribution.strategy_run import gather_rows
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.evaluation.contact_sheet import ORDER_BY, Extremes, ShownImage
from engine.evaluation.image_metrics import MetricCollector
from engine.evaluation.picture_scale import PictureScale, to_8_bits
from engine.evaluation.results import Evaluation
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.input_pipeline.pictures import to_picture
from engine.task import Task
from engine.training_data import TrainingData

MIN_IMAGE_SIZE = 11
"""The SSIM window, in pixels: smaller images have no SSIM."""

BASELINES = INPUT_ITSELF, MEAN_TARGET = ("input", "mean target")
"""The input itself, where the channels agree (enlarged by bicubic interpolation where it is smaller); and the
mean training target for every image, which takes a pass over the training split."""

EVALUATION_BATCH_PER_REPLICA = 8
"""Examples that a replica translates at once."""

MODEL = "model"
"""Name of the translations among all that is measured."""

_NAME = "name"
_NAME_BYTES = 512  # of a name; what is longer is cut


class _Batch(NamedTuple):
    """What the replicas made of a batch.

    Attributes:
      shown: uint8 [B, H, W, C]: the inputs.
      pictures: the inputs on the scale of the targets, [B, H, W, C] by role; empty where they are not alike.
      measured: by name of what is measured, its images and their targets.
      is_finite: uint8 [B], 0 or 1: whether all that the networks made of an example is finite.
      names: uint8 [B, 512], padded with zeros; [B, 0] if examples have no names.
    """

    shown: tf.Tensor
    pictures: Mapping[str, tf.Tensor]
    measured: Mapping[str, tuple[tf.Tensor, tf.Tensor]]
    is_finite: tf.Tensor
    names: tf.Tensor


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
        self._scales = {role: PictureScale.of(data, role) for role in (INPUT, TARGET)}

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

    def evaluate(
        self, split: str, *, baselines: Collection[str] = (), extremes: Extremes | None = None
    ) -> Evaluation:
        """Evaluates one pass over a split. Every image counts once, on any number of replicas.

        Args:
          split: its name.
          baselines: those of `BASELINES` to evaluate too, if the data are paired.
          extremes: gets the translations, if the data are paired.

        Raises:
          NonFiniteOutputError: names the first example for which a network's output is not finite.
        """
        names: list[str] = []
        collector = MetricCollector()
        wanted = set(baselines) if self._data.is_paired else set()
        mean_target = self._mean_target() if MEAN_TARGET in wanted else None
        for batch in self._batches(split):
            if not np.all(batch.is_finite):
                example = len(names) + int(np.argmin(batch.is_finite))
                raise NonFiniteOutputError(f"example {example} of split {split!r}, counted from 0")
            measured = dict(batch.measured)
            if wanted:
                measured |= self._baselines(batch, wanted, mean_target)
            values = {
                name: collector.add(name, *images, self._scale_of(name)) for name, images in measured.items()
            }
            batch_names = _decode(batch.names)
            if MODEL in values and extremes is not None:
                for row, name in enumerate(batch_names):
                    extremes.add(
                        ShownImage(
                            value=float(values[MODEL][ORDER_BY][row]),
                            example=len(names) + row,
                            name=name,
                            columns=self._columns(batch, row),
                        )
                    )
            names += batch_names
        results = collector.results()
        return Evaluation(
            examples=len(names),
            names=tuple(names) if any(names) else (),
            value_range=self._scales[TARGET].value_range,
            translations=results.pop(MODEL, None),
            baseline_images={name: results.pop(name) for name in BASELINES if name in results},
            reconstruction_images=results,
        )

    def _baselines(
        self, batch: _Batch, wanted: Collection[str], mean_target: tf.Tensor | None
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """The images of the baselines, with the targets."""
        targets, images = batch.measured[MODEL][1], {}
        if INPUT_ITSELF in wanted and INPUT in batch.pictures:
            images[INPUT_ITSELF] = _enlarged(batch.pictures[INPUT], targets, self._scales[TARGET])
        if mean_target is not None:
            images[MEAN_TARGET] = tf.broadcast_to(mean_target, tf.shape(targets))
        return {name: (made, targets) for name, made in images.items()}

    def _scale_of(self, name: str) -> PictureScale:
        """The scale of what is measured; see `Task.reconstructions`."""
        return self._scales[INPUT if name.endswith(f"_{INPUT}") else TARGET]

    def _columns(self, batch: _Batch, row: int) -> dict[str, np.ndarray]:
        output, target = (to_8_bits(x[row], self._scales[TARGET]).numpy() for x in batch.measured[MODEL])
        return {"input": batch.shown[row].numpy(), "output": output, "target": target}

    def _batches(self, split: str) -> Iterator[_Batch]:
        """Yields what the networks make of the batches of a split, in order."""
        batches = self._data.evaluation(split, batch=self._batch).map(_distributable)
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
        batch = dict(batch)
        names = batch.pop(_NAME)
        rows = tf.shape(batch[INPUT])[0]
        # The last batch may leave a replica without an example; some oneDNN kernels fail on empty batches.
        # oneDNN stays on all the same: it is 5 times as fast as TensorFlow's own CPU kernels.
        padded = {
            name: tf.pad(values, [[0, tf.maximum(0, 1 - rows)]] + [[0, 0]] * (values.shape.rank - 1))
            for name, values in batch.items()
        }
        made = dict(self._task.reconstructions(self._networks, padded))
        if self._data.is_paired:
            made[MODEL] = self._task.translate(self._networks, padded), padded[TARGET]
        is_finite = tf.ones([tf.shape(padded[INPUT])[0]], tf.bool)
        for images, _ in made.values():  # before they become whole numbers, which hide NaN
            is_finite &= tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])  # [B]
        measured = {
            name: tuple(self._scale_of(name).convert(self._data, x[:rows]) for x in images)
            for name, images in made.items()
        }
        inputs = self._task.input_picture(padded)[:rows]
        return _Batch(
            shown=to_picture(self._data, inputs, role=INPUT),
            pictures=self._inputs_as_targets(inputs, padded[TARGET]),
            measured=measured,
            is_finite=tf.cast(is_finite[:rows], tf.uint8),
            names=names,
        )

    def _inputs_as_targets(self, inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        """The inputs on the scale of the targets; nothing where they are not pictures like these."""
        scale = self._scales[TARGET]
        if INPUT in getattr(self._data, "one_hot", {}):
            if scale != PictureScale():
                return {}
            pictures = to_picture(self._data, inputs, role=INPUT)
        else:
            pictures = scale.convert(self._data, inputs)
        return {INPUT: pictures} if pictures.shape[-1] == targets.shape[-1] else {}

    def _mean_target(self) -> tf.Tensor:
        """The mean target of the training split, as prepared for evaluation: [H, W, C] of its scale."""
        scale = self._scales[TARGET]
        total, examples = 0.0, 0
        with reraise_record_errors(self._data, "train"):
            for batch in self._data.evaluation("train", batch=32):
                pictures = tf.cast(scale.convert(self._data, batch[TARGET]), tf.float64)
                total += tf.reduce_sum(pictures, axis=0)
                examples += int(pictures.shape[0])
        mean = total / examples
        return tf.cast(mean if scale.dtype == "float32" else tf.round(mean), scale.dtype)


def _distributable(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What replicas take: floating-point features, and names as numbers: accelerators have no text."""
    features = {name: x for name, x in example.items() if x.dtype.is_floating}
    if _NAME in example:
        names = tf.io.decode_raw(example[_NAME], tf.uint8, fixed_length=_NAME_BYTES)  # [B, 512]
    else:
        names = tf.zeros([tf.shape(features[INPUT])[0], 0], tf.uint8)
    return features | {_NAME: names}


def _decode(names: tf.Tensor) -> list[str]:
    return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in names.numpy()]


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
