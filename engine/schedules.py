"""Learning-rate schedules: a factor on the learning rate, by position in the run or by evaluations.

Schedules by position are called inside the compiled step with the examples drawn before that step (a
float64 scalar tensor) and the examples per epoch (an integer), and return a float64 scalar. Their lengths may
be relative to the run: "50%" follows TOTAL_EXAMPLES, so a longer run decays later.
`OneCycle` also takes the batch of the step: it is an `engine.optimizers.BatchedSchedule`.
`ReduceOnPlateau` follows the evaluations: it is an `engine.optimizers.MetricSchedule`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Self

import tensorflow as tf

from engine.batching.plateau import PlateauDetector
from engine.durations import Duration, examples_of, is_relative
from engine.errors import ConfigurationError
from engine.smoothing import Smoothing

# Examples per epoch, and of the run, while these are unknown: so many that no part of an epoch or of the run
# that a user may write rounds to 0 examples.
_ANY_EPOCH_EXAMPLES = 10**9


class _ByPosition:
    """Base of the schedules by position, which are dataclasses."""

    _lengths: ClassVar[Mapping[str, int]]
    """Name of each length -> the fewest examples that it may have."""

    def __post_init__(self) -> None:
        for name in self._lengths:
            self._examples(name, _ANY_EPOCH_EXAMPLES, _ANY_EPOCH_EXAMPLES)

    def for_run(self, *, total_examples: int, examples_per_epoch: int) -> Self:
        """This schedule for one run: lengths that are relative to the run are in examples.

        Args:
          total_examples: of the run.
          examples_per_epoch: training examples in one epoch.

        Raises:
          ConfigurationError: a length is shorter than one example.
        """
        resolved = {
            name: self._of_run(self._examples(name, examples_per_epoch, total_examples), examples_per_epoch)
            for name in self._lengths
            if is_relative(getattr(self, name))
        }
        return dataclasses.replace(self, **resolved) if resolved else self  # type: ignore[type-var]

    def _of_run(self, examples: int, examples_per_epoch: int) -> int:
        """The length, in examples, that a part of the run of so many examples stands for."""
        return examples

    def _examples(self, field: str, examples_per_epoch: int, total_examples: int | None = None) -> int:
        """A length in examples; raises ConfigurationError if it is too short."""
        duration, name = getattr(self, field), f"{type(self).__name__}.{field}"
        if is_relative(duration) and total_examples is None:
            raise ConfigurationError(
                f"{name} = {duration!r}: a part of a run whose length is not known here; call for_run first"
            )
        examples = examples_of(
            duration, examples_per_epoch=examples_per_epoch, name=name, total_examples=total_examples or 0
        )
        if examples < self._lengths[field]:
            raise ConfigurationError(f"{name} = {duration!r}: shorter than one example; make it longer")
        return examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearDecay(_ByPosition):
    """Constant, then linearly to zero, in steps of one epoch as in the published pix2pix.

    In epoch e, counted from 1, the factor is  1 - max(0, e + ahead - constant) / (decay + 1)  with both
    lengths in epochs. The reference code has used two conventions. The schedule moves at the end of each
    epoch ("end_of_epoch", ahead = 0: before July 2020 and today; the learning rate of the last epoch is above
    0), or at its start ("start_of_epoch", ahead = 1: between these times).

    Attributes:
      constant: how long the learning rate stays constant, such as "100ep", or "50%" of the run, rounded up to
        whole epochs.
      decay: how long it then falls, likewise.
      convention: "end_of_epoch" or "start_of_epoch".
    """

    constant: Duration = "100ep"
    decay: Duration = "100ep"
    convention: str = "end_of_epoch"

    _lengths: ClassVar[Mapping[str, int]] = {"constant": 0, "decay": 0}

    def __post_init__(self) -> None:
        if self.convention not in ("end_of_epoch", "start_of_epoch"):
            raise ConfigurationError(
                f"LinearDecay.convention = {self.convention!r}: unknown; use 'end_of_epoch' or "
                "'start_of_epoch'"
            )
        super().__post_init__()

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        constant_epochs, decay_epochs = (
            self._examples(name, examples_per_epoch) / examples_per_epoch for name in ("constant", "decay")
        )
        ahead = 0.0 if self.convention == "end_of_epoch" else 1.0
        epoch = tf.floor(examples / examples_per_epoch) + 1.0
        decayed = tf.nn.relu(epoch + (ahead - constant_epochs)) / (decay_epochs + 1.0)
        return tf.nn.relu(1.0 - decayed)

    def _of_run(self, examples: int, examples_per_epoch: int) -> int:
        # In steps of one epoch, a fraction of an epoch would lower the learning rate of the first epoch.
        return -(-examples // examples_per_epoch) * examples_per_epoch


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepDecay(_ByPosition):
    """Falls by a factor at regular intervals: factor ** floor(examples / every).

    torch.optim.lr_scheduler.StepLR, counted in examples; the published pix2pix's policy "step" is
    every = "50ep", factor = 0.1.

    Attributes:
      every: period of the falls, such as "50ep", or "25%" of the run.
      factor: multiplies the learning rate at each fall; between 0 and 1.
    """

    every: Duration
    factor: float = 0.1

    _lengths: ClassVar[Mapping[str, int]] = {"every": 1}

    def __post_init__(self) -> None:
        _check_factor(self)
        super().__post_init__()

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        falls = tf.floor(examples / self._examples("every", examples_per_epoch))
        return tf.constant(self.factor, tf.float64) ** falls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(_ByPosition):
    """Constant, then half a cosine from 1 down to a final fraction, where it stays.

    With t = (examples - constant) / duration clipped to [0, 1], the factor is
    final + (1 - final) * (1 + cos(pi * t)) / 2  (Loshchilov and Hutter, arXiv 1608.03983, one period). It
    changes with every example, not once an epoch.

    Attributes:
      duration: how long it falls, such as "100ep", or "100%" of the run.
      final_fraction: the factor at the end, in [0, 1].
      constant: how long the learning rate is constant before that, likewise.
    """

    duration: Duration
    final_fraction: float = 0.0
    constant: Duration = 0

    _lengths: ClassVar[Mapping[str, int]] = {"duration": 1, "constant": 0}

    def __post_init__(self) -> None:
        if not 0 <= self.final_fraction <= 1:
            raise ConfigurationError(
                f"Cosine.final_fraction = {self.final_fraction}: must lie in [0, 1]; it is a fraction of "
                "the learning rate"
            )
        super().__post_init__()

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        constant = self._examples("constant", examples_per_epoch)
        duration = self._examples("duration", examples_per_epoch)
        passed = tf.clip_by_value((examples - constant) / duration, 0.0, 1.0)
        remaining = (1.0 + tf.cos(math.pi * passed)) / 2.0
        return self.final_fraction + (1.0 - self.final_fraction) * remaining


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneCycle(_ByPosition):
    """Up to the full learning rate, then down to almost nothing, along half a cosine each.

    Source: Smith and Topin, "Super-Convergence", arXiv 1708.07120. With one batch size it equals
    torch.optim.lr_scheduler.OneCycleLR (two phases, anneal_strategy="cos") with max_lr = LEARNING_RATE,
    pct_start = rise / duration, div_factor = 1 / start_fraction and final_div_factor = start_fraction /
    final_fraction, at every step; beta1 and momentum stay as they are set. The first step has the fraction
    `start_fraction`, the step that ends at `rise` the full learning rate, and the step that ends at
    `duration`, like all after it, `final_fraction`. While the batch grows, the position decides, not the
    number of steps.

    Attributes:
      rise: how long it rises, such as "5ep", or "30%" of the run.
      duration: how long it rises and falls together, likewise.
      start_fraction: the factor of the first step, in (0, 1].
      final_fraction: the factor at the end, in [0, 1].
    """

    rise: Duration = "30%"
    duration: Duration = "100%"
    start_fraction: float = 0.04
    final_fraction: float = 4e-6

    _lengths: ClassVar[Mapping[str, int]] = {"rise": 0, "duration": 1}

    def __post_init__(self) -> None:
        if not (0 < self.start_fraction <= 1 and 0 <= self.final_fraction <= 1):
            raise ConfigurationError(
                f"OneCycle: start_fraction = {self.start_fraction} must lie in (0, 1], final_fraction = "
                f"{self.final_fraction} in [0, 1]; they are fractions of the learning rate"
            )
        super().__post_init__()

    def for_run(self, *, total_examples: int, examples_per_epoch: int) -> Self:
        """As for other schedules; also raises ConfigurationError if it would only rise."""
        rise, duration = (
            self._examples(name, examples_per_epoch, total_examples) for name in ("rise", "duration")
        )
        if rise >= duration:
            raise ConfigurationError(
                f"OneCycle: rise = {self.rise!r} ({rise} examples) is not shorter than duration = "
                f"{self.duration!r} ({duration}); shorten it"
            )
        return super().for_run(total_examples=total_examples, examples_per_epoch=examples_per_epoch)

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor at a position, in the limit of small batches."""
        return self.factor_of_step(examples, examples_per_epoch, tf.constant(0.0, tf.float64))

    def factor_of_step(
        self, examples: tf.Tensor, examples_per_epoch: int, global_batch: tf.Tensor
    ) -> tf.Tensor:
        """The factor for a step of so many examples that starts at `examples`."""
        rise = tf.constant(self._examples("rise", examples_per_epoch), tf.float64)
        duration = tf.constant(self._examples("duration", examples_per_epoch), tf.float64)
        end = examples + global_batch
        risen = tf.math.divide_no_nan(examples, rise - global_batch)  # used where end <= rise only
        fallen = tf.clip_by_value((end - rise) / (duration - rise), 0.0, 1.0)
        rising = 1.0 + (self.start_fraction - 1.0) * (1.0 + tf.cos(math.pi * risen)) / 2.0
        falling = self.final_fraction + (1.0 - self.final_fraction) * (1.0 + tf.cos(math.pi * fallen)) / 2.0
        return tf.where(end <= rise, rising, falling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReduceOnPlateau:
    """Falls by a factor whenever an evaluation metric has stopped improving.

    Equals torch.optim.lr_scheduler.ReduceLROnPlateau with threshold_mode="abs"; see
    `engine.batching.plateau.PlateauDetector`. It needs evaluations during training: set EVALUATE_EVERY. The
    state is a dictionary of floats: "factor", the current factor on the learning rate, and the state of the
    detector.

    Attributes:
      metric: the evaluation metric to watch.
      patience: evaluations without improvement that are tolerated.
      factor: multiplies the learning rate at each fall; between 0 and 1. The defaults of `patience` and
        `factor` are the published pix2pix's policy "plateau".
      floor: smallest factor on the learning rate, in [0, 1].
      minimum_change: an improvement up to this does not count, in the unit of the metric.
      smoothing: of the metric, such as `engine.smoothing.CentredWindow`; None takes it as it is.
    """

    metric: str = "psnr_db"
    patience: int = 5
    factor: float = 0.2
    floor: float = 0.0
    minimum_change: float = 0.0
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        _check_factor(self)
        if not 0 <= self.floor <= 1:
            raise ConfigurationError(
                f"ReduceOnPlateau.floor = {self.floor}: must lie in [0, 1]; it is a fraction of the learning "
                "rate"
            )
        self._detector()

    def initial(self) -> dict[str, float]:
        """The state before the first evaluation."""
        return {"factor": 1.0, **self._detector().initial()}

    def observe(self, state: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after one evaluation with these metrics, by name."""
        detected, plateaued = self._detector().observe(state, metrics)
        factor = max(state["factor"] * self.factor, self.floor) if plateaued else state["factor"]
        return {"factor": factor, **detected}

    def _detector(self) -> PlateauDetector:
        return PlateauDetector(
            metric=self.metric,
            patience=self.patience,
            minimum_change=self.minimum_change,
            smoothing=self.smoothing,
            owner="ReduceOnPlateau",
        )


def _check_factor(schedule: StepDecay | ReduceOnPlateau) -> None:
    if not 0 < schedule.factor < 1:
        raise ConfigurationError(
            f"{type(schedule).__name__}.factor = {schedule.factor}: must lie between 0 and 1; the learning "
            "rate is multiplied by it at each fall"
        )
