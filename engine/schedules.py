"""Learning-rate schedules: a factor on the learning rate, by position in the run or by evaluations.

Schedules by position are called inside the compiled step with the examples drawn before that step (a
float64 scalar tensor) and the examples per epoch (an integer), and return a float64 scalar.
`ReduceOnPlateau` follows the evaluations: it is an `engine.task.MetricSchedule`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import tensorflow as tf

from engine.batching.plateau import PlateauDetector
from engine.durations import Duration, examples_of
from engine.errors import ConfigurationError

# Examples per epoch while the data set is unknown: so many that no part of an epoch that a user may write
# rounds to 0 examples.
_ANY_EPOCH_EXAMPLES = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearDecay:
    """Constant, then linearly to zero, in steps of one epoch as in the published pix2pix.

    In epoch e, counted from 1, the factor is  1 - max(0, e + ahead - constant) / (decay + 1)  with both
    lengths in epochs. The reference code has used two conventions. The schedule moves at the end of each
    epoch ("end_of_epoch", ahead = 0: before July 2020 and today; the learning rate of the last epoch is above
    0), or at its start ("start_of_epoch", ahead = 1: between these times).

    Attributes:
      constant: how long the learning rate stays constant, such as "100ep".
      decay: how long it then falls, such as "100ep".
      convention: "end_of_epoch" or "start_of_epoch".
    """

    constant: Duration = "100ep"
    decay: Duration = "100ep"
    convention: str = "end_of_epoch"

    def __post_init__(self) -> None:
        if self.convention not in ("end_of_epoch", "start_of_epoch"):
            raise ConfigurationError(
                f"LinearDecay.convention = {self.convention!r}: unknown; use 'end_of_epoch' or "
                "'start_of_epoch'"
            )
        for name in ("constant", "decay"):
            _examples(self, name, _ANY_EPOCH_EXAMPLES)

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        constant_epochs, decay_epochs = (
            _examples(self, name, examples_per_epoch) / examples_per_epoch for name in ("constant", "decay")
        )
        ahead = 0.0 if self.convention == "end_of_epoch" else 1.0
        epoch = tf.floor(examples / examples_per_epoch) + 1.0
        decayed = tf.nn.relu(epoch + (ahead - constant_epochs)) / (decay_epochs + 1.0)
        return tf.nn.relu(1.0 - decayed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepDecay:
    """Falls by a factor at regular intervals: factor ** floor(examples / every).

    torch.optim.lr_scheduler.StepLR, counted in examples; the published pix2pix's policy "step" is
    every = "50ep", factor = 0.1.

    Attributes:
      every: period of the falls, such as "50ep".
      factor: multiplies the learning rate at each fall; between 0 and 1.
    """

    every: Duration
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_factor(self)
        _examples(self, "every", _ANY_EPOCH_EXAMPLES, least=1)

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        falls = tf.floor(examples / _examples(self, "every", examples_per_epoch, least=1))
        return tf.constant(self.factor, tf.float64) ** falls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Constant, then half a cosine from 1 down to a final fraction, where it stays.

    With t = (examples - constant) / duration clipped to [0, 1], the factor is
    final + (1 - final) * (1 + cos(pi * t)) / 2  (Loshchilov and Hutter, arXiv 1608.03983, one period). It
    changes with every example, not once an epoch.

    Attributes:
      duration: how long it falls, such as "100ep".
      final_fraction: the factor at the end, in [0, 1].
      constant: how long the learning rate is constant before that.
    """

    duration: Duration
    final_fraction: float = 0.0
    constant: Duration = 0

    def __post_init__(self) -> None:
        if not 0 <= self.final_fraction <= 1:
            raise ConfigurationError(
                f"Cosine.final_fraction = {self.final_fraction}: must lie in [0, 1]; it is a fraction of "
                "the learning rate"
            )
        _examples(self, "duration", _ANY_EPOCH_EXAMPLES, least=1)
        _examples(self, "constant", _ANY_EPOCH_EXAMPLES)

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        """The factor for the step that starts at `examples`."""
        constant = _examples(self, "constant", examples_per_epoch)
        duration = _examples(self, "duration", examples_per_epoch, least=1)
        passed = tf.clip_by_value((examples - constant) / duration, 0.0, 1.0)
        remaining = (1.0 + tf.cos(math.pi * passed)) / 2.0
        return self.final_fraction + (1.0 - self.final_fraction) * remaining


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
    """

    metric: str = "psnr_db"
    patience: int = 5
    factor: float = 0.2
    floor: float = 0.0
    minimum_change: float = 0.0

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
            owner="ReduceOnPlateau",
        )


def _examples(
    schedule: LinearDecay | StepDecay | Cosine, field: str, examples_per_epoch: int, *, least: int = 0
) -> int:
    """A duration of a schedule in examples; raises ConfigurationError if it is below `least`."""
    duration, name = getattr(schedule, field), f"{type(schedule).__name__}.{field}"
    examples = examples_of(duration, examples_per_epoch=examples_per_epoch, name=name)
    if examples < least:
        raise ConfigurationError(f"{name} = {duration!r}: shorter than one example; make it longer")
    return examples


def _check_factor(schedule: StepDecay | ReduceOnPlateau) -> None:
    if not 0 < schedule.factor < 1:
        raise ConfigurationError(
            f"{type(schedule).__name__}.factor = {schedule.factor}: must lie between 0 and 1; the learning "
            "rate is multiplied by it at each fall"
        )
