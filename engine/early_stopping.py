"""Ends a run when an evaluation metric has stopped improving.

The state is a dictionary of floats that the trainer keeps in checkpoints, as that of the schedules is; every
method is a pure function of it. So a run that was interrupted stops where an uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.batching.plateau import PlateauDetector
from engine.durations import Duration, examples_of
from engine.errors import ConfigurationError
from engine.smoothing import Smoothing

_OWNER = "EarlyStopping"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Settings of early stopping: the run ends after `patience` without an improvement of the metric.

    `engine.batching.plateau.PlateauDetector` tells what an improvement is. The patience begins at the
    evaluation that shows one, and the run ends at the first evaluation at which it is over. It does not
    change which checkpoint is the best; that is chosen by the metric as measured.

    Attributes:
      metric: the evaluation metric to watch; None: the one that chooses the best checkpoint.
      patience: training without improvement after which the run ends, such as "50ep".
      minimum_change: an improvement up to this does not count, in the unit of the metric.
      smoothing: of the metric, such as `engine.smoothing.CentredWindow`; None takes it as it is.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    metric: str | None = None
    patience: Duration = "50ep"
    minimum_change: float = 0.0
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        self._patience_examples(examples_per_epoch=10**9)
        self._detector(self.metric or "psnr_db", patience=0)  # checks the settings

    def resolve(self, *, metric: str, examples_per_epoch: int) -> StoppingRule:
        """The rule for one run.

        Args:
          metric: the metric to watch.
          examples_per_epoch: training examples in one epoch.

        Raises:
          ConfigurationError: the patience is shorter than one example, or the metric is unknown.
        """
        patience = self._patience_examples(examples_per_epoch=examples_per_epoch)
        # "waited" counts whole examples, so that more than patience - 1 is at least the patience.
        return StoppingRule(self._detector(metric, patience=patience - 1), patience_examples=patience)

    def _detector(self, metric: str, *, patience: int) -> PlateauDetector:
        return PlateauDetector(
            metric=metric,
            patience=patience,
            minimum_change=self.minimum_change,
            smoothing=self.smoothing,
            owner=_OWNER,
        )

    def _patience_examples(self, *, examples_per_epoch: int) -> int:
        name = f"{_OWNER}.patience"
        examples = examples_of(self.patience, examples_per_epoch=examples_per_epoch, name=name)
        if examples < 1:
            raise ConfigurationError(
                f"{name} = {self.patience!r}: shorter than one example; write for example '50ep'"
            )
        return examples


@dataclasses.dataclass(frozen=True)
class StoppingRule:
    """When one run ends early.

    The state holds that of the detector, the position of the last evaluation ("evaluated_at") and the length
    of the run at that time ("total"), both in examples.

    Attributes:
      detector: watches the metric; its "waited" is in examples.
      patience_examples: the run ends after so many examples without an improvement.
    """

    detector: PlateauDetector
    patience_examples: int

    @property
    def metric(self) -> str:
        """The evaluation metric to watch."""
        return self.detector.metric

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        return self.detector.initial() | {"evaluated_at": 0.0, "total": 0.0}

    def observe(
        self, state: Mapping[str, float], metrics: Mapping[str, float], *, examples: int, total: int
    ) -> dict[str, float]:
        """The state after an evaluation.

        Args:
          state: before it.
          metrics: of the evaluation, by name.
          examples: its position.
          total: examples of the whole run.
        """
        passed = examples - state["evaluated_at"]
        after = self.detector.advance(state, metrics, passed=passed)
        return after | {"evaluated_at": float(examples), "total": float(total)}

    def is_over(self, state: Mapping[str, float]) -> bool:
        """Whether the run ends here."""
        return self.detector.is_plateau(state)

    def extend(self, state: Mapping[str, float], *, examples: int, total: int) -> dict[str, float]:
        """The state of a run that goes on: if it has ended but is longer now, the patience begins again.

        Args:
          state: as restored.
          examples: the position of the run.
          total: examples of the whole run, as configured now.
        """
        if not self.is_over(state) or total <= state["total"]:
            return dict(state)
        return dict(state) | self.detector.wait_anew(state) | {"evaluated_at": float(examples)}

    def earliest_stop(self, evaluate_every: int) -> int:
        """The first position at which a run may end if only its first evaluations improve.

        Args:
          evaluate_every: examples between evaluations.
        """
        smoothing = self.detector.smoothing
        first = 1 + (smoothing.delay if smoothing else 0)
        return (first + -(-self.patience_examples // evaluate_every)) * evaluate_every
