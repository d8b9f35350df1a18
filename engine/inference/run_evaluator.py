"""Evaluates checkpoints of a run, and writes what it finds into the run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data.errors import DataError, MissingDatasetError
from engine.errors import ConfigurationError
from engine.evaluation.baselines import BASELINES, INPUT_ITSELF
from engine.evaluation.contact_sheet import Extremes
from engine.evaluation.details import write_details
from engine.evaluation.metric_choice import check_names
from engine.evaluation.results import SplitEvaluation
from engine.evaluation.split_evaluator import make_evaluator
from engine.feature_extractor import FeatureExtractor, LearnedMetric
from engine.inference.evaluation_mode import EvaluationMode
from engine.outer_loop.trainer import Trainer
from engine.pictures.picture_log import print_notes
from engine.pictures.picture_pairs import PicturePairs
from engine.reporting.log_rows import evaluation_row, interval_row
from engine.storage.run_directory import append_row, read_rows


class RunEvaluator:
    """Evaluates the networks that a trainer holds, on one split and in one mode.

    Args:
      trainer: of the run.
      images: a split of the run's data set, or pairs of pictures.
      mode: of the networks.
      metrics: names of metrics that are measured beside those of the run.
      lpips: also measures LPIPS; None leaves that to the run's own setting.
      extractor: of the features that KID and FID compare; None is the run's own.

    Attributes:
      trainer: as given.
      split: the name under which the run's files hold the evaluations: that of the split, and how the mode
        and the feature extractor differ from those of evaluations in training.

    Raises:
      ConfigurationError: the run has no such weights, or a metric cannot be measured.
    """

    def __init__(
        self,
        trainer: Trainer,
        images: str | PicturePairs,
        *,
        mode: EvaluationMode,
        metrics: Sequence[str] = (),
        lpips: LearnedMetric | None = None,
        extractor: FeatureExtractor | None = None,
    ):
        check_names(metrics, setting="--metrics")
        experiment = trainer.experiment
        self.trainer = trainer
        self._pairs = None if isinstance(images, str) else images
        self._of_data = images if isinstance(images, str) else images.split
        used = mode.apply(trainer.state)
        self.split = self._of_data + used.suffix
        if extractor is not None and extractor != experiment.feature_extractor:
            self.split += f", {extractor.identity}"
        self._evaluator = make_evaluator(
            task=experiment.task,
            devices=trainer.devices,
            data=self._pairs or experiment.data,
            networks=used.networks,
            extractor=extractor or experiment.feature_extractor,
            more_metrics=tuple(dict.fromkeys((*experiment.metrics, *metrics))),
            lpips=lpips or experiment.lpips,
            dropout=used.dropout,
            mode=used.description,
        )
        self._baselines: tuple[str, ...] | None = None

    def evaluate(self) -> SplitEvaluation:
        """Evaluates what the trainer has restored; writes a row to eval.jsonl, and the files of the images.

        Raises:
          ConfigurationError: a metric cannot be measured, or a file cannot be written.
          data.errors.DataError: there is no such split, or the data set or a picture cannot be used.
          engine.errors.NonFiniteOutputError: the output of the networks is not finite.
        """
        trainer, extremes = self.trainer, Extremes()
        if self._baselines is None:
            self._baselines = self._possible_baselines()
        evaluation = dataclasses.replace(
            self._evaluator.evaluate(self._of_data, baselines=self._baselines, extremes=extremes),
            split=self.split,
            position=trainer.examples,
        )
        if self._pairs is not None:
            pictures = evaluation.examples * self._pairs.pictures_of_example
            print_notes(self._pairs.notes_of_pictures, pictures=pictures)
        write_details(
            trainer.run_directory, evaluation, extremes, split=self.split, examples=trainer.examples
        )
        # The row comes last: `follow_run` repeats an evaluation without one.
        row = evaluation_row(evaluation, split=self.split, step=trainer.step, examples=trainer.examples)
        append_row(trainer.run_directory.eval_log, row | interval_row(evaluation))
        return evaluation

    def evaluated(self) -> set[int]:
        """Positions at which the run has been evaluated on this split, in this mode, by all these metrics."""
        names = self._evaluator.image_metric_names
        return {
            int(row["examples"])
            for row in read_rows(self.trainer.run_directory.eval_log)
            if row.get("split") == self.split and all(f"metric/{name}" in row for name in names)
        }

    def _possible_baselines(self) -> tuple[str, ...]:
        if self._pairs is None:
            return BASELINES
        try:
            self._pairs.evaluation("train", batch=1)
        except (DataError, ConfigurationError) as error:
            reason = error.what if isinstance(error, MissingDatasetError) else error
            print(f"note: without the baseline of the mean training target: {reason}")
            return (INPUT_ITSELF,)
        return BASELINES
