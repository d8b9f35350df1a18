"""The evaluator that fits a task: of images, or of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import keras

from engine.distribution.devices import Devices
from engine.errors import ConfigurationError
from engine.evaluation.contact_sheet import Extremes
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.label_evaluator import LabelEvaluator
from engine.evaluation.results import SplitEvaluation
from engine.feature_extractor import FeatureExtractor, LearnedMetric
from engine.task import Task
from engine.training_data import TrainingData, target_kind


class SplitEvaluator(Protocol):
    """Evaluates the networks of a task on whole splits."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics of each evaluation."""

    @property
    def image_metric_names(self) -> tuple[str, ...]:
        """Names of those that are means over the images."""

    def prepare(self) -> None:
        """Reads what metrics need, and checks them."""

    def evaluate(
        self, split: str, *, baselines: Collection[str] = (), extremes: Extremes | None = None
    ) -> SplitEvaluation:
        """Evaluates one pass over a split.

        Args:
          split: its name.
          baselines: see the evaluators.
          extremes: gets the images that the networks make.
        """


def make_evaluator(
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
) -> SplitEvaluator:
    """Makes the evaluator for the targets of a task; the arguments are those of `Evaluator`.

    Raises:
      ConfigurationError: the task does not learn the targets of the data, or a metric is of images and
        targets are labels; or as `Evaluator`.
    """
    check_targets(task, data)
    if task.target_kind is None:
        return Evaluator(
            task=task,
            devices=devices,
            data=data,
            networks=networks,
            extractor=extractor,
            more_metrics=more_metrics,
            lpips=lpips,
            dropout=dropout,
            mode=mode,
        )
    wanted = [*more_metrics, *([] if lpips is None else ["lpips"])]
    if wanted:
        raise ConfigurationError(
            f"metric {wanted[0]!r}: is of images, and {type(task).__name__} predicts labels; leave it out of "
            "Experiment.metrics, Experiment.lpips, --metrics and --lpips_weights"
        )
    return LabelEvaluator(
        task=task, devices=devices, data=data, networks=networks, dropout=dropout, mode=mode
    )


def check_targets(task: Task, data: TrainingData) -> None:
    """Raises ConfigurationError unless the targets of the data are of the kind that the task learns."""
    found, wanted = target_kind(data), task.target_kind
    if found != wanted:
        raise ConfigurationError(
            f"{type(task).__name__}: learns {wanted or 'images'}, but the targets of this data set are "
            f"{found or 'images'}; give it another data set, or use another task: a Classification learns "
            "classes, a Regression numbers"
        )
