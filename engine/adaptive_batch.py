"""Batch schedules that follow training, by a plateau of a metric or the gradient noise scale."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Collection, Mapping

from engine.batch_schedules import BatchGrowth, BatchSchedule, State
from engine.batching.noise_scale import NoiseScaleValue
from engine.batching.plateau import PlateauDetector
from engine.durations import Duration
from engine.errors import ConfigurationError
from engine.smoothing import Smoothing


class Ladder(BatchGrowth, BatchSchedule):
    """Sizes that training climbs like a ladder, rung by rung. The state "rung" is 0 for the smallest."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """The sizes, rising."""
        return tuple(self._powers())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes, `start` first."""
        return tuple(dict.fromkeys((self.start, *self.rungs)))

    @property
    def pieces(self) -> tuple[tuple[int | None, int], ...]:
        """(0, start), then (None, size) for each other size."""
        return tuple((None if index else 0, size) for index, size in enumerate(self.sizes))

    def initial_state(self) -> dict[str, float]:
        """The state at the start of a run."""
        return {"rung": float(self.rungs.index(self.start))}

    def batch(self, examples: int, state: State) -> int:
        """The global batch of this rung."""
        del examples
        # A run that was resumed with a shorter ladder may be above its end.
        return self.rungs[min(int(state["rung"]), len(self.rungs) - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowOnPlateau(Ladder):
    """Grows the batch on a plateau, where others lower the learning rate (Smith et al., arXiv 1711.00489).

    `engine.batching.plateau.PlateauDetector` detects the plateau. `DecayAfterGrowth` lowers the learning rate
    once the batch is at its largest, as they do.

    Attributes:
      metric: the evaluation metric to watch.
      patience: evaluations without improvement that are tolerated.
      minimum_change: an improvement up to this does not count, in the unit of the metric.
      smoothing: of the metric, such as `engine.smoothing.CentredWindow`; None takes it as it is.
    """

    metric: str = "psnr_db"
    patience: int
    minimum_change: float = 0.0
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.detector  # checks its settings

    def resolve(self, examples_per_epoch: int) -> GrowOnPlateau:
        """The schedule for a data set of so many training examples.

        Raises:
          ConfigurationError: a batch is larger than the data set.
        """
        self._check_data(examples_per_epoch)
        return self

    def initial_state(self) -> dict[str, float]:
        """The state at the start of a run: the rung, and the state of the detector."""
        return super().initial_state() | self.detector.initial()

    def check(self, *, phases: Collection[str], evaluate_every: int) -> None:
        """Checks that there are evaluations during training.

        Raises:
          ConfigurationError: there is none before the end.
        """
        if evaluate_every == 0:
            raise ConfigurationError(
                "BATCH_SCHEDULE: GrowOnPlateau decides after evaluations, and EVALUATE_EVERY = 0 makes none "
                "before the end; set EVALUATE_EVERY, for example to '1ep'"
            )

    def after_evaluation(self, state: State, metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after an evaluation with these metrics, by name."""
        waiting, plateaued = self.detector.observe(state, metrics)
        return dict(state) | waiting | {"rung": min(state["rung"] + plateaued, len(self.rungs) - 1.0)}

    @property
    def detector(self) -> PlateauDetector:
        """What detects the plateau."""
        return PlateauDetector(
            metric=self.metric,
            patience=self.patience,
            minimum_change=self.minimum_change,
            smoothing=self.smoothing,
            owner="GrowOnPlateau",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecayAfterGrowth:
    """Lowers the learning rate on plateaus once `GrowOnPlateau` cannot grow the batch (an `Adam.schedule`).

    Each plateau after that divides the learning rate by the schedule's `factor` (Smith et al., arXiv
    1711.00489: they increase the batch until it is as large as it may be, then decay the learning rate by the
    same factor). It is an `engine.optimizers.MetricSchedule`. Its state is the "factor" on the learning rate
    and a state of the batch schedule, which it moves on by the same evaluations.

    Attributes:
      growth: the settings of the batch schedule.
    """

    growth: GrowOnPlateau

    @property
    def metric(self) -> str:
        """The evaluation metric that it follows."""
        return self.growth.metric

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        return {"factor": 1.0} | self.growth.initial_state()

    def observe(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after one evaluation with these metrics, by name."""
        after = self.growth.after_evaluation(state, metrics)
        _, plateaued = self.growth.detector.observe(state, metrics)
        if plateaued and after["rung"] == state["rung"]:
            after["factor"] = state["factor"] / self.growth.factor
        return after


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowByNoiseScale(Ladder):
    """Keeps the batch in proportion to the gradient noise scale (McCandlish et al., arXiv 1812.06162).

    The goal is the largest rung up to target * scale, or the lowest rung if all are above that. Each decision
    moves at most one rung towards it, which limits the effect of chance. Nothing changes if the scale is
    unknown (nan) or not positive. The scale is infinite if the estimate of |G|^2 is 0 or negative: then noise
    hides the gradient, and the batch grows by one rung.

    Attributes:
      phase: the phase of the task whose gradient decides.
      every: period of the decisions, such as "1ep".
      target: factor on the scale. For the norm test it is 1 / eta^2: 4 is the usual eta = 0.5.
      statistic: "noise_scale" is tr(Sigma) / |G|^2; "norm_test" has the squared norm of the mean gradient in
        place of |G|^2 (Byrd et al. 2012; Lau et al., arXiv 2412.21124). That norm contains tr(Sigma) / B, so
        the norm test never asks for more than target times the current batch.
      monotone: whether the batch may only grow.
      minimum: the lowest rung if the batch may shrink; the sizes below `start` are start / factor^n. None is
        `start`.
    """

    phase: str
    every: Duration
    target: float = 1.0
    statistic: str = "noise_scale"
    monotone: bool = True
    minimum: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._period(self.every)
        if self.statistic not in ("noise_scale", "norm_test"):
            raise self._refusal("statistic", "unknown; use 'noise_scale' or 'norm_test'")
        if not self.target > 0:
            raise self._refusal("target", "must be above 0; 1.0 follows the noise scale")
        if self.statistic == "norm_test" and self.target <= self.factor:
            never = "the norm test asks for less than target times the batch, so the batch would never grow"
            raise self._refusal("target", f"{never}; give more than factor = {self.factor}, such as 4.0")
        if self.minimum is not None and self.monotone:
            raise self._refusal("minimum", "a monotone batch never falls; set monotone = False, or None here")
        if self.minimum is not None and not 1 <= self.minimum <= self.start:
            raise self._refusal("minimum", f"must lie between 1 and start = {self.start}; change it")

    def resolve(self, examples_per_epoch: int) -> GrowByNoiseScale:
        """The schedule for a data set of so many training examples, with `every` in examples.

        Raises:
          ConfigurationError: a batch is larger than the data set.
        """
        self._check_data(examples_per_epoch)
        every = self._period(self.every, examples_per_epoch=examples_per_epoch)
        return dataclasses.replace(self, every=every)

    @property
    def decide_every_examples(self) -> int:
        """How often `after_noise_scale` is due. Only of a resolved schedule."""
        return self._period(self.every)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The sizes, rising."""
        lowest = self.start if self.minimum is None else self.minimum
        below, power = {self.start}, 0
        while lowest not in below:
            power += 1
            below.add(round(max(lowest, self.start / self.factor**power)))
        return tuple(sorted(below | self._powers().keys()))

    def check(self, *, phases: Collection[str], evaluate_every: int) -> None:
        """Checks that the task has the phase.

        Raises:
          ConfigurationError: it has no such phase.
        """
        if self.phase not in phases:
            raise self._refusal("phase", f"the task has no such phase; use one of {', '.join(phases)}")

    def after_noise_scale(self, state: State, scales: Mapping[str, NoiseScaleValue]) -> dict[str, float]:
        """The state after a decision on the noise scales, by phase."""
        value = scales[self.phase]
        scale = value.noise_scale if self.statistic == "noise_scale" else value.norm_test_scale
        if not scale > 0:  # nan too
            return dict(state)
        rung = int(state["rung"])
        goal = max(bisect.bisect_right(self.rungs, self.target * scale) - 1, 0)
        down = goal < rung and not self.monotone
        return dict(state) | {"rung": float(rung + (goal > rung) - down)}
