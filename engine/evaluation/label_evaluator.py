"""Metrics of predicted labels over a whole split, and of a baseline that needs no training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.special import log_softmax

from data.roles import CLASSES, TARGET
from engine.distribution.devices import Devices
from engine.distribution.strategy_run import gather_rows
from engine.evaluation.contact_sheet import Extremes
from engine.evaluation.kept_statistics import KeptStatistics
from engine.evaluation.label_results import (
    ClassEvaluation,
    LabelEvaluation,
    NumberEvaluation,
    metric_names,
)
from engine.evaluation.split_batches import check_finite, decoded_names, replica_batch, split_batches
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.replica_context import set_dropout_keys
from engine.task import Task
from engine.training_data import TrainingData

_MEAN_TARGET = "mean target label"


class _Predicted(NamedTuple):
    """Labels of a batch.

    Attributes:
      predictions: [B, K], as of `Task.predict`.
      targets: [B, K].
      names: uint8 [B, 512] or [B, 0], as of `ReplicaBatch`.
    """

    predictions: tf.Tensor
    targets: tf.Tensor
    names: tf.Tensor


class LabelEvaluator:
    """Evaluates the network of a task that predicts labels, sharded over the replicas.

    It has the interface of `engine.evaluation.evaluator.Evaluator`.

    Args:
      task: its `predict` makes the labels.
      devices: of the run; its replicas make them.
      data: `evaluation(split)` yields "target", [B, K], and what `predict` takes.
      networks: by name; `evaluate` uses their values at that time.
      dropout: whether `models.networks.dropout` is active.
      mode: says with which weights and in which mode the networks compute, for tables.
    """

    def __init__(
        self,
        *,
        task: Task,
        devices: Devices,
        data: TrainingData,
        networks: Mapping[str, keras.Model],
        dropout: bool = False,
        mode: str = "",
    ):
        self._task = task
        self._devices = devices
        self._data = data
        self._networks = networks
        self._dropout = dropout
        self._mode = mode

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics of each evaluation."""
        assert self._task.target_kind is not None
        return metric_names(self._task.target_kind, self._names)

    @property
    def image_metric_names(self) -> tuple[str, ...]:
        """Names of those that are means over the images."""
        return tuple(name for name in self.metric_names if not name.endswith(("rmse", "r2")))

    def prepare(self) -> None:
        """Nothing: there are no weights to read."""

    def evaluate(
        self, split: str, *, baselines: Collection[str] = (), extremes: Extremes | None = None
    ) -> LabelEvaluation:
        """Evaluates one pass over a split. Every image counts once, on any number of replicas.

        Args:
          split: its name.
          baselines: if there are any, the baseline of labels is evaluated too.
          extremes: is for images that networks make.

        Raises:
          NonFiniteOutputError: names the first example for which the output is not finite.
        """
        del extremes
        found: list[tuple[np.ndarray, ...]] = []
        names: list[str] = []
        for batch in split_batches(self._devices, self._data, split):
            predicted = self._predict(batch)
            predictions, targets = (x.numpy().astype(np.float64) for x in predicted[:2])
            check_finite(np.isfinite(predictions).all(axis=1), split=split, done=len(names))
            found.append(self._reduced(predictions, targets))
            names += decoded_names(predicted.names)
        values = tuple(np.concatenate(each) for each in zip(*found, strict=True))
        return self._result(
            values,
            names=names,
            split=split,
            mean_target=_mean_target(self._data) if baselines else None,
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return self._data.target_names  # type: ignore[attr-defined]

    def _reduced(self, predictions: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
        """What is kept of a batch: predictions, targets and, of classes, cross-entropies."""
        if self._task.target_kind != CLASSES:
            return predictions, targets
        classes = np.argmax(targets, axis=1)
        entropies = -np.take_along_axis(log_softmax(predictions, axis=1), classes[:, np.newaxis], axis=1)[
            :, 0
        ]
        return np.argmax(predictions, axis=1), classes, entropies

    def _result(
        self,
        values: tuple[np.ndarray, ...],
        *,
        names: list[str],
        mean_target: np.ndarray | None,
        split: str = "",
    ) -> LabelEvaluation:
        shared: dict[str, Any] = {
            "examples": len(values[0]),
            "split": split,
            "names": tuple(names) if any(names) else (),
            "mode": self._mode,
            "target_names": self._names,
            "mean_target": mean_target,
        }
        if self._task.target_kind == CLASSES:
            predictions, targets, entropies = values
            return ClassEvaluation(
                predictions=predictions, targets=targets, cross_entropies=entropies, **shared
            )
        predictions, targets = values
        return NumberEvaluation(predictions=predictions, targets=targets, **shared)

    @tf.function(autograph=False, reduce_retracing=True)
    def _predict(self, batch: Mapping[str, tf.Tensor]) -> _Predicted:
        per_replica = self._devices.strategy.run(
            tf.autograph.experimental.do_not_convert(self._predict_replica), args=(batch,)
        )
        return tf.nest.map_structure(lambda x: gather_rows(self._devices, x), per_replica)

    def _predict_replica(self, batch: Mapping[str, tf.Tensor]) -> _Predicted:
        own = replica_batch(batch)
        with set_dropout_keys(own.dropout_keys if self._dropout else None):
            predictions = self._task.predict(self._networks, own.features)
        return _Predicted(predictions[: own.rows], own.features[TARGET][: own.rows], own.names)


def _mean_target(data: TrainingData) -> np.ndarray:
    """The mean target of the training split, float64 [K]; of classes, how often each comes."""
    kept = KeptStatistics(data)
    found = kept.load("train", _MEAN_TARGET)
    if found is None:
        with reraise_record_errors(data, "train"):
            targets = [batch[TARGET].numpy() for batch in data.evaluation("train", batch=32)]
        found = {"mean": np.concatenate(targets).astype(np.float64).mean(axis=0)}
        kept.save("train", _MEAN_TARGET, found)
    return found["mean"]
