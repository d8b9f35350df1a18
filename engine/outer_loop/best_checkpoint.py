"""The choice of the best checkpoint by an evaluation metric."""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from data.imaging.metric_names import higher_is_better, metric_of, needs_targets
from engine.errors import ConfigurationError
from engine.evaluation.split_evaluator import SplitEvaluator
from engine.experiment import Experiment
from engine.outer_loop.run_plan import RunPlan
from engine.training_data import TrainingData


class BestCheckpoint:
    """Tells which evaluations improve on the best so far.

    Args:
      metric: the evaluation metric that decides; None chooses no checkpoint.
      best: float64 scalar, the best value so far; NaN before the first.
    """

    def __init__(self, metric: str | None, best: tf.Variable):
        self._metric = metric
        self._best = best

    def improves(self, metrics: Mapping[str, float]) -> bool:
        """Whether an evaluation is better than all before it.

        Args:
          metrics: of the evaluation, by name; without the metric that decides, nothing is chosen.
        """
        if self._metric is None or self._metric not in metrics:
            return False
        value, best = metrics[self._metric], float(self._best.numpy())
        is_better = value > best if higher_is_better(self._metric) else value < best
        return is_better or math.isnan(best)

    def accept(self, metrics: Mapping[str, float]) -> str:
        """Records an evaluation that improves as the best, and returns a line that says so."""
        assert self._metric is not None
        before, value = float(self._best.numpy()), metrics[self._metric]
        self._best.assign(value)
        if math.isnan(before):
            return f"{self._metric} is {value_text(value)} in the first evaluation, saved"
        old, new = _distinct_texts(before, value)
        return f"{self._metric} improved from {old} to {new}, saved"


def check_measured(experiment: Experiment, evaluator: SplitEvaluator) -> None:
    """Checks metrics that settings name: which there are of reconstructions or labels, only the task knows.

    Raises:
      ConfigurationError: evaluations of this task do not measure one of them.
    """
    for setting, name in experiment.named_metrics.items():
        may_be_missing = experiment.task.target_kind is not None or metric_of(name) != name
        if may_be_missing and name not in evaluator.metric_names:
            measured = ", ".join(evaluator.metric_names) or "none"
            raise ConfigurationError(
                f"{setting} = {name!r}: evaluations of this task do not measure it; use one of {measured}"
            )


def best_line(plan: RunPlan, data: TrainingData) -> str:
    """What chooses the best checkpoint of a run, as a line of its plan."""
    metric = plan.best_metric
    if metric is None:
        return "Best checkpoint: none; Experiment.best_metric can name a metric"
    if needs_targets(metric) and not data.is_paired:
        return f"Best checkpoint: none; unpaired data have no targets to measure {metric} by"
    better = "highest" if higher_is_better(metric) else "lowest"
    when = (
        f"measured every {plan.evaluate_every} examples"
        if plan.evaluate_every
        else "measured at the end only (EVALUATE_EVERY = 0), so it is the last one"
    )
    return f"Best checkpoint: the {better} {metric} on {data.evaluation_split}, {when}"


def value_text(value: float) -> str:
    """A metric in a line of text: 18.64, or 0.6823 where two decimals would hide too much."""
    return f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def _distinct_texts(before: float, after: float) -> tuple[str, str]:
    """Both values, with as many decimals as it takes to tell them apart."""
    texts = value_text(before), value_text(after)
    decimals = 4
    while texts[0] == texts[1] and decimals < 16:
        decimals += 2
        texts = f"{before:.{decimals}f}", f"{after:.{decimals}f}"
    return texts
