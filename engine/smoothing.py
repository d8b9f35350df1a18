"""Smoothing of an evaluation metric, for what reacts when the metric stops improving.

The state of a smoothing is a dictionary of floats, which a checkpoint can hold; the objects are immutable.
Values that are not finite are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

from engine.errors import ConfigurationError


class Smoothing(Protocol):
    """What `engine.batching.plateau.PlateauDetector` needs of a smoothing."""

    @property
    def label(self) -> str:
        """A short name that differs where the settings differ; names of variables begin with it."""

    @property
    def delay(self) -> int:
        """Evaluations that pass before the smoothed value of one is known."""

    def __str__(self) -> str:
        """What it is, in a few words."""

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""

    def observe(self, state: Mapping[str, float], value: float) -> tuple[dict[str, float], float | None]:
        """The state after an evaluation, and the newest smoothed value; None while there is none yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential:
    """The weighted mean of all evaluations so far: sum of decay^k x_(t-k) over sum of decay^k.

    pandas' ewm(alpha=1 - decay, adjust=True, ignore_na=True).

    Attributes:
      decay: weight of an evaluation relative to the one after it, in [0, 1); 0.8 averages over about five.
    """

    decay: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigurationError(
                f"Exponential.decay = {self.decay}: must lie in [0, 1); 0.8 averages over about 5 evaluations"
            )

    @property
    def label(self) -> str:
        """A short name that differs where the settings differ."""
        return f"exponential_{self.decay!r}"

    @property
    def delay(self) -> int:
        """Evaluations that pass before the smoothed value of one is known: none."""
        return 0

    def __str__(self) -> str:
        return f"exponential mean, decay {self.decay:g}"

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        return {"sum": 0.0, "weight": 0.0}

    def observe(self, state: Mapping[str, float], value: float) -> tuple[dict[str, float], float | None]:
        """The state after an evaluation, and its smoothed value; NaN if `value` is not finite."""
        if not math.isfinite(value):
            return dict(state), math.nan
        total, weight = (self.decay * state[name] + new for name, new in (("sum", value), ("weight", 1.0)))
        return {"sum": total, "weight": weight}, total / weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentredWindow:
    """The mean of an evaluation and of as many before as after it.

    So a value is known (evaluations - 1) / 2 evaluations late. Near the start of the run the window is cut.

    Attributes:
      evaluations: length of the window; odd.
    """

    evaluations: int = 5

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.evaluations % 2 == 0:
            raise ConfigurationError(
                f"CentredWindow.evaluations = {self.evaluations}: must be odd and at least 1; 5 is usual"
            )

    @property
    def label(self) -> str:
        """A short name that differs where the settings differ."""
        return f"centred_{self.evaluations}"

    @property
    def delay(self) -> int:
        """Evaluations that pass before the smoothed value of one is known."""
        return self.evaluations // 2

    def __str__(self) -> str:
        return f"mean of {self.evaluations}"

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation: the last values, the newest last, and how many they are."""
        return {str(place): math.nan for place in range(self.evaluations)} | {"count": 0.0}

    def observe(self, state: Mapping[str, float], value: float) -> tuple[dict[str, float], float | None]:
        """The state after an evaluation, and the smoothed value of the one `delay` before it.

        The value is None if there was none, and NaN if nothing in its window is finite.
        """
        window = [state[str(place)] for place in range(1, self.evaluations)] + [value]
        count = min(int(state["count"]) + 1, self.evaluations)
        after = {str(place): each for place, each in enumerate(window)} | {"count": float(count)}
        if count <= self.delay:
            return after, None
        finite = [each for each in window[-count:] if math.isfinite(each)]
        return after, math.fsum(finite) / len(finite) if finite else math.nan
