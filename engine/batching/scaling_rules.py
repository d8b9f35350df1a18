"""Scaling rules: how the hyper-parameters of a step follow its global batch.

All settings are those for the first global batch of the schedule; k is the global batch divided by that one.
The table has the factors.

    rule                      learning rate   1 - beta1   1 - beta2   epsilon
    none                      1               1           1           1
    linear                    k               1           1           1
    square_root               sqrt(k)         k           k           1 / sqrt(k)
    square_root_beta1_kept    sqrt(k)         1           k           1 / sqrt(k)

"linear" is Goyal et al., arXiv 1706.02677. "square_root" keeps the stochastic differential equation of Adam
(Malladi et al., arXiv 2205.10287), and so the number of examples that the moments average over. It is
undefined if k (1 - beta) > 1: with beta1 = 0.5, above k = 2. "square_root_beta1_kept" is the square-root rule
with beta1 fixed: no limit for beta1, but the first moment averages over k times as many examples.

The table is for Adam and AMSGrad; Lion takes it over, for lack of a published rule of its own. RMSprop's rho
follows the column of beta2 (Malladi et al.). The momentum of SGD and RMSprop stays as set, with every rule:
for SGD, "linear" is that of Goyal et al., who keep the momentum, and "square_root" keeps the noise of an
update (Hoffer et al., arXiv 1705.08741).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.optimizers import BatchedSchedule, MetricSchedule, Optimizer, RelativeSchedule

Number: TypeAlias = tf.Tensor | float


class WarmupState(NamedTuple):
    """Where a warm-up of the learning rate starts, as Python numbers or tensors.

    Attributes:
      previous_growth: `BatchScaling.growth` just before the last change of the batch. It is less than the k
        of that time if a warm-up was not over; 1 before the first change.
      changed_at_examples: examples drawn when the batch last changed; 0 before the first change.
    """

    previous_growth: Number = 1.0
    changed_at_examples: Number = 0


class Hyperparameters(NamedTuple):
    """Hyper-parameters of one optimizer in one step, after schedules and rules: float64 scalars.

    Attributes:
      learning_rate: of the step.
      beta1: `Optimizer.first_decay`; 0 if the optimizer has none.
      beta2: `Optimizer.second_decay`; 0 if the optimizer has none.
      epsilon: 0 if the optimizer has none.
      weight_decay: of the step.
      weight_decay_scale: the factor of the rule in it.
    """

    learning_rate: tf.Tensor
    beta1: tf.Tensor
    beta2: tf.Tensor
    epsilon: tf.Tensor
    weight_decay: tf.Tensor
    weight_decay_scale: Number = 1.0


class _Rule(NamedTuple):
    """Powers of k in the factors on the learning rate, 1 - beta1, 1 - beta2 and epsilon."""

    learning_rate: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 0.0


RULES = {
    "none": _Rule(),
    "linear": _Rule(learning_rate=1.0),
    "square_root": _Rule(learning_rate=0.5, beta1=1.0, beta2=1.0, epsilon=-0.5),
    "square_root_beta1_kept": _Rule(learning_rate=0.5, beta2=1.0, epsilon=-0.5),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchScaling:
    """Hyper-parameters as a function of optimizer, position and global batch.

    Attributes:
      examples_per_epoch: examples in the training split.
      first_batch: the first global batch of the schedule; all settings are for this one.
      rule: one of `RULES`; see the table in the module docstring.
      warmup_examples: after the batch has grown, the learning rate moves to its new value over this many
        examples; 0 is at once. Betas, epsilon and decays change with the batch, without a warm-up.
      first_warmup_examples: length of the warm-up at the start of the run; see `first_warmup`.
      scale_weight_decay: keeps the decay per example, learning rate * weight decay / batch. The weight decay
        is multiplied by k and divided by the rule's factor on the learning rate: a factor of sqrt(k) for the
        square-root rules (Busbridge et al., arXiv 2307.13813, App. C.2). Otherwise it stays as set.
      scale_ema_decay: keeps the number of examples that the moving averages of weights remember (Busbridge et
        al., arXiv 2307.13813). Otherwise their decay per update stays as set.
      total_examples: of the run, for learning-rate schedules that depend on it; None if none does.

    Raises:
      ConfigurationError: the rule is unknown, or a warm-up is negative.
    """

    examples_per_epoch: int
    first_batch: int
    rule: str = "none"
    warmup_examples: int = 0
    first_warmup_examples: int = 0
    scale_weight_decay: bool = False
    scale_ema_decay: bool = False
    total_examples: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigurationError(
                f"LEARNING_RATE_RULE = {self.rule!r}: unknown; use one of {', '.join(RULES)}"
            )
        for name in ("warmup_examples", "first_warmup_examples"):
            if getattr(self, name) < 0:
                raise ConfigurationError(
                    f"BatchScaling.{name} = {getattr(self, name)}: must be at least 0; raise it"
                )

    def check(self, optimizers: Mapping[str, Optimizer], entries: Mapping[int, str]) -> None:
        """Checks that the rule gives valid hyper-parameters for every batch of the schedule.

        Args:
          optimizers: settings by name.
          entries: the entry of the schedule ("4000:8") for each global batch that the schedule can take.

        Raises:
          ConfigurationError: a beta would fall below 0; the message quotes the entry. Or a learning-rate
            schedule does not fit the length of the run.
        """
        for settings in optimizers.values():
            self.position_schedule(settings)
        for batch, entry in entries.items():
            for name, settings in optimizers.items():
                for field, power in self._powers(settings).items():
                    self._check_decay(field, power, settings, batch, entry, optimizer=name)

    def _powers(self, settings: Optimizer) -> dict[str, float]:
        """The powers of k in the factors on 1 - decay, by name of the setting."""
        rule = RULES[self.rule]
        powers = {}
        if settings.first_decay:
            powers[settings.first_decay] = 0.0 if settings.keeps_first_decay else rule.beta1
        if settings.second_decay:
            powers[settings.second_decay] = rule.beta2
        return powers

    def _check_decay(
        self, field: str, power: float, settings: Optimizer, batch: int, entry: str, *, optimizer: str
    ) -> None:
        growth, beta = batch / self.first_batch, getattr(settings, field)
        scaled = 1.0 - growth**power * (1.0 - beta)
        if scaled >= -1e-9:  # k (1 - beta) = 1 is allowed, up to rounding
            return
        other = "square_root_beta1_kept" if field == settings.first_decay else "linear"
        largest = math.floor(self.first_batch / (1.0 - beta) + 1e-6)
        least_beta = math.ceil((1.0 - 1.0 / growth) * 1e4 - 1e-6) / 1e4
        raise ConfigurationError(
            f"BATCH_SCHEDULE: {entry!r} makes the batch {growth:g} times the first; "
            f"LEARNING_RATE_RULE = {self.rule!r} would give optimizer {optimizer!r} "
            f"{field} = 1 - {growth:g} * (1 - {beta:g}) = {scaled:g}, below 0; use the rule "
            f"{other!r}, a batch of at most {largest}, or {field} of at least {least_beta:g}"
        )

    def growth(self, *, examples: Number, global_batch: Number, warmup: WarmupState) -> tf.Tensor:
        """The growth that the learning rate follows: k, or less during a warm-up.

        A warm-up is linear in examples, from `warmup.previous_growth` to a larger k (as in Goyal et al.,
        arXiv 1706.02677, who warm up from the learning rate of the small batch). A smaller k applies at once.

        Args:
          examples: drawn before this step.
          global_batch: of this step.
          warmup: the last change of the batch.

        Returns:
          float64 scalar, also for Python numbers.
        """
        target = _float64(global_batch) / self.first_batch
        if not self.warmup_examples:
            return target
        before = _float64(warmup.previous_growth)
        passed = (_float64(examples) - _float64(warmup.changed_at_examples)) / self.warmup_examples
        passed = tf.clip_by_value(passed, 0.0, 1.0)
        return tf.where(target > before, (1.0 - passed) * before + passed * target, target)

    def first_warmup(self, *, examples: Number, global_batch: Number) -> tf.Tensor:
        """The factor of the warm-up at the start of the run: examples drawn after the step / length, up to 1.

        Its first step has a learning rate above 0, and the step that ends at its length the full one. With
        one batch size of n steps it is torch.optim.lr_scheduler.LinearLR with start_factor = 1 / n and
        total_iters = n - 1.

        Args:
          examples: drawn before this step.
          global_batch: of this step.

        Returns:
          float64 scalar in (0, 1].
        """
        if not self.first_warmup_examples:
            return _float64(1.0)
        drawn = _float64(examples) + _float64(global_batch)
        return tf.minimum(drawn / self.first_warmup_examples, 1.0)

    def _factor(self, schedule: Callable, examples: tf.Tensor, global_batch: tf.Tensor) -> tf.Tensor:
        if isinstance(schedule, BatchedSchedule):
            return schedule.factor_of_step(examples, self.examples_per_epoch, global_batch)
        return schedule(examples, self.examples_per_epoch)

    def position_schedule(self, settings: Optimizer) -> Callable[[tf.Tensor, int], tf.Tensor] | None:
        """The schedule by position of an optimizer, for this run; None if it has none."""
        if settings.schedule is None or isinstance(settings.schedule, MetricSchedule):
            return None
        if self.total_examples is not None and isinstance(settings.schedule, RelativeSchedule):
            return settings.schedule.for_run(
                total_examples=self.total_examples, examples_per_epoch=self.examples_per_epoch
            )
        return settings.schedule

    def hyperparameters(
        self,
        settings: Optimizer,
        *,
        examples: tf.Tensor,
        global_batch: tf.Tensor,
        growth: tf.Tensor,
        plateau_factor: tf.Tensor,
    ) -> Hyperparameters:
        """The hyper-parameters of one optimizer in one step.

        Args:
          settings: of the optimizer, for the first batch.
          examples: int64 scalar, drawn before this step.
          global_batch: int32 scalar, examples of this step.
          growth: float64 scalar, as `growth` returns it.
          plateau_factor: float64 scalar, the state "factor" of the optimizer's schedule if that is a
            `MetricSchedule`; otherwise unused.
        """
        rule = RULES[self.rule]
        k = _float64(global_batch) / self.first_batch
        learning_rate = _float64(settings.learning_rate) * _float64(growth) ** rule.learning_rate
        if isinstance(settings.schedule, MetricSchedule):
            learning_rate *= _float64(plateau_factor)
        elif (schedule := self.position_schedule(settings)) is not None:
            learning_rate *= self._factor(schedule, _float64(examples), _float64(global_batch))
        learning_rate *= self.first_warmup(examples=examples, global_batch=global_batch)
        weight_decay_scale = k ** (1.0 - rule.learning_rate) if self.scale_weight_decay else _float64(1.0)
        powers = self._powers(settings)
        decays = {name: _scaled_decay(getattr(settings, name), k, power) for name, power in powers.items()}
        return Hyperparameters(
            learning_rate=learning_rate,
            beta1=decays.get(settings.first_decay or "", _float64(0.0)),
            beta2=decays.get(settings.second_decay or "", _float64(0.0)),
            epsilon=_float64(getattr(settings, "epsilon", 0.0)) * k**rule.epsilon,
            weight_decay=_float64(settings.weight_decay) * weight_decay_scale,
            weight_decay_scale=weight_decay_scale,
        )

    def ema_decay(self, decay: float, global_batch: Number) -> tf.Tensor:
        """The decay of a moving average at this batch, float64 scalar; `decay` is for the first batch."""
        k = _float64(global_batch) / self.first_batch
        return _float64(decay) ** (k if self.scale_ema_decay else 1.0)


def _scaled_decay(beta: float, k: tf.Tensor, power: float) -> tf.Tensor:
    if not power:
        return _float64(beta)  # 1 - (1 - beta) would lose the last bits
    # `check` allows values below 0 only by rounding.
    return tf.maximum(1.0 - k**power * (1.0 - beta), 0.0)


def _float64(value: Number) -> tf.Tensor:
    # tf.cast alone would first make a Python float a float32.
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)
