"""Detects that an evaluation metric has stopped improving, for everything that reacts to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from data.imaging.metric_names import higher_is_better, known_metrics, metric_of
from engine.errors import ConfigurationError
from engine.smoothing import Smoothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauDetector:
    """Reports a plateau after `patience` + 1 evaluations in a row without improvement.

    The rule is that of torch.optim.lr_scheduler.ReduceLROnPlateau with threshold_mode="abs" and no cooldown.
    An evaluation is an improvement if it is better than the best so far by more than `minimum_change`; the
    first one always is, a NaN never. `data.imaging.metric_names` says which direction is better. With a
    smoothing, this is said of the smoothed values, and evaluations before the first of them do not count.

    The object itself is immutable. The state is a dictionary of floats, which a checkpoint can hold: "best",
    the best value so far (NaN before the first), "waited", the number of evaluations since then, and the
    state of the smoothing. With a smoothing, its label is put before all of these names, so that a run that
    goes on with another one begins afresh.

    Attributes:
      metric: the evaluation metric to watch.
      patience: evaluations without improvement that are tolerated; or the units of `advance`'s `passed`.
      minimum_change: an improvement up to this does not count, in the unit of the metric.
      smoothing: of the metric; None takes it as it is.
      owner: the class whose settings these are, for error messages.

    Raises:
      ConfigurationError: the metric is unknown, or a number is negative.
    """

    metric: str = "psnr_db"
    patience: int
    minimum_change: float = 0.0
    smoothing: Smoothing | None = None
    owner: str = "PlateauDetector"

    def __post_init__(self) -> None:
        if metric_of(self.metric) is None:
            raise ConfigurationError(
                f"{self.owner}.metric = {self.metric!r}: unknown; use one of {known_metrics()}"
            )
        for name in ("patience", "minimum_change"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{self.owner}.{name} = {value}: must be at least 0; raise it")

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        smoothing = self.smoothing.initial() if self.smoothing else {}
        return self._named({"best": math.nan, "waited": 0.0} | smoothing)

    def observe(
        self, state: Mapping[str, float], metrics: Mapping[str, float]
    ) -> tuple[dict[str, float], bool]:
        """The state after one evaluation.

        Args:
          state: what `initial` or the last `observe` returned.
          metrics: of this evaluation, by name.

        Returns:
          The new state, and whether the metric has plateaued; if so, "waited" starts again at 0.
        """
        after = self.advance(state, metrics, passed=1.0)
        plateaued = self.is_plateau(after)
        return (self.wait_anew(after) if plateaued else after), plateaued

    def advance(
        self, state: Mapping[str, float], metrics: Mapping[str, float], *, passed: float
    ) -> dict[str, float]:
        """The state after one evaluation, in which "waited" grows even on a plateau.

        Args:
          state: before the evaluation.
          metrics: of this evaluation, by name.
          passed: how much of the patience has passed since the evaluation before.

        Raises:
          ConfigurationError: the evaluation did not measure the metric.
        """
        value = self._value(metrics)
        before = self._own(state)
        after, smoothed = self.smoothing.observe(before, value) if self.smoothing else ({}, value)
        best, waited = before["best"], before["waited"]
        if smoothed is not None:
            improves = self._improves(smoothed, best)
            best, waited = (smoothed, 0.0) if improves else (best, waited + passed)
        return self._named(after | {"best": best, "waited": waited})

    def is_plateau(self, state: Mapping[str, float]) -> bool:
        """Whether the patience is over."""
        return self.waited(state) > self.patience

    def waited(self, state: Mapping[str, float]) -> float:
        """How much of the patience has passed since the best value."""
        return self._own(state)["waited"]

    def best(self, state: Mapping[str, float]) -> float:
        """The best value so far, smoothed if there is a smoothing; NaN before the first."""
        return self._own(state)["best"]

    def wait_anew(self, state: Mapping[str, float]) -> dict[str, float]:
        """The detector's part of a state, with a patience that begins again."""
        return self._named(self._own(state) | {"waited": 0.0})

    def _value(self, metrics: Mapping[str, float]) -> float:
        if self.metric not in metrics:
            raise ConfigurationError(
                f"{self.owner}.metric = {self.metric!r}: evaluations of this task do not measure it; use one "
                f"of {', '.join(metrics) or 'none, as they measure nothing'}"
            )
        return float(metrics[self.metric])

    def _improves(self, value: float, best: float) -> bool:
        if math.isnan(best):
            return not math.isnan(value)
        sign = 1.0 if higher_is_better(self.metric) else -1.0
        return sign * value > sign * best + self.minimum_change

    @property
    def _prefix(self) -> str:
        return f"{self.smoothing.label}/" if self.smoothing else ""

    def _named(self, own: Mapping[str, float]) -> dict[str, float]:
        return {self._prefix + name: value for name, value in own.items()}

    def _own(self, state: Mapping[str, float]) -> dict[str, float]:
        """The detector's part of a state, without its prefix."""
        names = ["best", "waited", *(self.smoothing.initial() if self.smoothing else ())]
        return {name: state[self._prefix + name] for name in names}
