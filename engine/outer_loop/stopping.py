"""Early stopping in a run: its state, and the lines that say why and where the run ends."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine.early_stopping import StoppingRule
from engine.outer_loop.best_checkpoint import value_text
from engine.outer_loop.run_plan import RunPlan

_PREFIX = "stopping"


def initial_stopping_state(rule: StoppingRule | None) -> dict[str, float]:
    """Initial values of all variables, by name; none without a rule."""
    return {_name(rule, name): value for name, value in rule.initial().items()} if rule else {}


def stopping_lines(plan: RunPlan) -> list[str]:
    """When the run ends early, as lines of its plan; none if it does not."""
    rule = plan.stopping
    if rule is None:
        return []
    per_epoch = plan.scaling.examples_per_epoch
    earliest = rule.earliest_stop(plan.evaluate_every)
    never = f"; TOTAL_EXAMPLES = {plan.total_examples} ends the run before that"
    return [
        f"Early stopping: when {_watched(rule)} has not improved{_by_more(rule)} for "
        f"{_length(rule.patience_examples, per_epoch)}; at example {earliest} at the earliest"
        f"{never if earliest >= plan.total_examples else ''}"
    ]


class EarlyStop:
    """Decides after evaluations whether the run ends. All its state is in variables, which checkpoints hold.

    Args:
      rule: when the run ends; None: at its total only.
      total_examples: of the whole run.
      examples_per_epoch: training examples in one epoch.
      variables: float64 scalars by name; among them those of `initial_stopping_state`.
    """

    def __init__(
        self,
        rule: StoppingRule | None,
        *,
        total_examples: int,
        examples_per_epoch: int,
        variables: Mapping[str, tf.Variable],
    ):
        self._rule = rule
        self._total = total_examples
        self._examples_per_epoch = examples_per_epoch
        self._variables = {name: variables[_name(rule, name)] for name in rule.initial()} if rule else {}

    @property
    def is_over(self) -> bool:
        """Whether the run ends here."""
        return self._rule is not None and self._rule.is_over(self._read())

    def resume(self, examples: int) -> str | None:
        """Prepares a run that starts, or goes on, at a position.

        Returns:
          A line if the run had stopped early and goes on because it is longer now; otherwise None.
        """
        if not self.is_over:
            return None
        assert self._rule is not None
        self._write(self._rule.extend(self._read(), examples=examples, total=self._total))
        if self.is_over:
            return None
        return (
            f"the run stopped early at {examples} examples and goes on because TOTAL_EXAMPLES was raised to "
            f"{self._total}: its patience of {self._length(self._rule.patience_examples)} begins again"
        )

    def after_evaluation(self, metrics: Mapping[str, float], *, examples: int) -> str | None:
        """Counts an evaluation.

        Args:
          metrics: of the evaluation, by name.
          examples: its position.

        Returns:
          A line that says how much of the patience is over; None if the metric improves.
        """
        if self._rule is None:
            return None
        self._write(self._rule.observe(self._read(), metrics, examples=examples, total=self._total))
        waited = int(self._rule.detector.waited(self._read()))
        if not waited or self.is_over:
            return None
        return (
            f"{_watched(self._rule)}: no improvement for {self._length(waited)} of "
            f"{self._length(self._rule.patience_examples)}"
        )

    def reason(self, examples: int) -> str | None:
        """Why and where the run has ended early; None if it has not.

        Args:
          examples: the position of the run.
        """
        if self._rule is None or not self.is_over or examples >= self._total:
            return None
        detector, state = self._rule.detector, self._read()
        return (
            f"stopped early at {examples} of {self._total} examples: {_watched(self._rule)} has not "
            f"improved{_by_more(self._rule)} on {value_text(detector.best(state))} for "
            f"{self._length(int(detector.waited(state)))}; a larger EarlyStopping.patience or TOTAL_EXAMPLES "
            "continues the run"
        )

    def _length(self, examples: int) -> str:
        return _length(examples, self._examples_per_epoch)

    def _read(self) -> dict[str, float]:
        return {name: float(variable.numpy()) for name, variable in self._variables.items()}

    def _write(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._variables[name].assign(value)


def _name(rule: StoppingRule, name: str) -> str:
    """The metric is in the name, so that a run that goes on with another one begins afresh."""
    return f"{_PREFIX}/{rule.metric}/{name}"


def _watched(rule: StoppingRule) -> str:
    smoothing = rule.detector.smoothing
    return f"{rule.metric}{f' ({smoothing})' if smoothing else ''}"


def _by_more(rule: StoppingRule) -> str:
    change = rule.detector.minimum_change
    return f" by more than {change:g}" if change else ""


def _length(examples: int, examples_per_epoch: int) -> str:
    epochs = f"{examples / examples_per_epoch:.3g}"
    return f"{examples} examples ({epochs} epoch{'' if epochs == '1' else 's'})"
