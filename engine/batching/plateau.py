"""Detects that an evaluation metric has stopped improving, for the schedules that react to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from data.imaging.metrics import HIGHER_IS_BETTER
from engine.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauDetector:
    """Reports a plateau after `patience` + 1 evaluations in a row without improvement.

    The rule is that of torch.optim.lr_scheduler.ReduceLROnPlateau with threshold_mode="abs" and no cooldown.
    An evaluation is an improvement if it is better than the best so far by more than `minimum_change`; the
    first one always is, a NaN never. `data.imaging.metrics.HIGHER_IS_BETTER` says which direction is better.

    The object itself is immutable. The state is a dictionary of floats, which a checkpoint can hold: "best",
    the best value so far (NaN before the first), and "waited", the number of evaluations since then.

    Attributes:
      metric: the evaluation metric to watch.
      patience: evaluations without improvement that are tolerated.
      minimum_change: an improvement up to this does not count, in the unit of the metric.
      owner: the class whose settings these are, for error messages.

    Raises:
      ConfigurationError: the metric is unknown, or a number is negative.
    """

    metric: str = "psnr_db"
    patience: int
    minimum_change: float = 0.0
    owner: str = "PlateauDetector"

    def __post_init__(self) -> None:
        if self.metric not in HIGHER_IS_BETTER:
            raise ConfigurationError(
                f"{self.owner}.metric = {self.metric!r}: unknown; use one of {', '.join(HIGHER_IS_BETTER)}"
            )
        for name in ("patience", "minimum_change"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{self.owner}.{name} = {value}: must be at least 0; raise it")

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        return {"best": math.nan, "waited": 0.0}

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
        value, best = float(metrics[self.metric]), state["best"]
        sign = 1.0 if HIGHER_IS_BETTER[self.metric] else -1.0
        is_first = math.isnan(best) and not math.isnan(value)
        if is_first or sign * value > sign * best + self.minimum_change:
            return {"best": value, "waited": 0.0}, False
        waited = state["waited"] + 1.0
        plateaued = waited > self.patience
        return {"best": best, "waited": 0.0 if plateaued else waited}, plateaued
