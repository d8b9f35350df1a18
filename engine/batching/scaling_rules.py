"""What a batch k times the first one does to the hyper-parameters of a step.

k is the global batch over the first global batch of the schedule, for which all settings are given.

    rule                      learning rate   1 - beta1   1 - beta2   epsilon
    none                      1               1           1           1
    linear                    k               1           1           1
    square_root               sqrt(k)         k           k           1 / sqrt(k)
    square_root_beta1_kept    sqrt(k)         1           k           1 / sqrt(k)

"linear" is Goyal et al., arXiv 1706.02677. "square_root" is what keeps the stochastic differential
equation of Adam the same (Malladi et al., arXiv 2205.10287): beside the step it keeps how many examples
the moments average over. It has no answer where k (1 - beta) > 1: with beta1 = 0.5, above k = 2. There
"square_root_beta1_kept" leaves beta1 alone, which gives the invariance up for the first moment:
momentum then averages over k times as many examples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Adam, MetricSchedule

Number: TypeAlias = tf.Tensor | float


class WarmupState(NamedTuple):
    """From where and since when a warm-up raises the learning rate; numbers of Python or tensors.

    Attributes:
      previous_growth: what `BatchScaling.growth` gave for the batch before the last change, at that change.
        It is not that batch's k if its own warm-up was not over; 1 before the first change.
      changed_at_examples: examples drawn when the batch last changed; 0 before the first change.
    """

    previous_growth: Number = 1.0
    changed_at_examples: Number = 0


class Hyperparameters(NamedTuple):
    """Of one optimizer in one step: float64 scalars, everything included."""

    learning_rate: tf.Tensor
    beta1: tf.Tensor
    beta2: tf.Tensor
    epsilon: tf.Tensor
    weight_decay: tf.Tensor


class _Rule(NamedTuple):
    """Powers of k: on the learning rate, and on 1 - beta1, 1 - beta2 and epsilon."""

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

    Args:
      examples_per_epoch: for schedules in epochs.
      first_batch: the global batch for which all settings were chosen: the first of the schedule.
      rule: one of `RULES`; see the top of this module.
      warmup_examples: over how many examples the learning rate goes to its new value after the batch
        has grown; 0 at once. Betas, epsilon and decays belong to the batch and change with it.
      scale_weight_decay: keeps the weight decay an example, learning rate times weight decay over batch,
        by multiplying it with k over the rule's factor on the learning rate: sqrt(k) for the square-root
        rules (Busbridge et al., arXiv 2307.13813, App. C.2). Otherwise it stays as set.
      scale_ema_decay: keeps how many examples the moving averages of weights remember (Busbridge et al.,
        arXiv 2307.13813). Otherwise their decay an update stays as set.

    Raises:
      ConfigurationError: the rule is unknown or the warm-up negative.
    """

    examples_per_epoch: int
    first_batch: int
    rule: str = "none"
    warmup_examples: int = 0
    scale_weight_decay: bool = False
    scale_ema_decay: bool = False

    def __post_init__(self):
        if self.rule not in RULES:
            raise ConfigurationError(
                f"LEARNING_RATE_RULE = {self.rule!r}: unknown; use one of {', '.join(RULES)}"
            )
        if self.warmup_examples < 0:
            raise ConfigurationError(
                f"BatchScaling.warmup_examples = {self.warmup_examples}: must be at least 0; raise it"
            )

    def check(self, optimizers: Mapping[str, Adam], entries: Mapping[int, str]) -> None:
        """Refuses a batch for which the rule has no answer.

        Args:
          optimizers: settings by name.
          entries: for each global batch that the schedule can take, the entry it comes from ("4000:8").

        Raises:
          ConfigurationError: a beta would fall below 0; quotes the entry.
        """
        for batch, entry in entries.items():
            growth = batch / self.first_batch
            for name, settings in optimizers.items():
                for field in ("beta1", "beta2"):
                    beta = getattr(settings, field)
                    scaled = 1.0 - growth ** getattr(RULES[self.rule], field) * (1.0 - beta)
                    if scaled >= -1e-9:  # k (1 - beta) = 1 is allowed, give or take rounding
                        continue
                    other = "square_root_beta1_kept" if field == "beta1" else "linear"
                    largest = math.floor(self.first_batch / (1.0 - beta) + 1e-6)
                    least_beta = math.ceil((1.0 - 1.0 / growth) * 1e4 - 1e-6) / 1e4
                    raise ConfigurationError(
                        f"BATCH_SCHEDULE: {entry!r} makes the batch {growth:g} times the first; "
                        f"LEARNING_RATE_RULE = {self.rule!r} would give optimizer {name!r} "
                        f"{field} = 1 - {growth:g} * (1 - {beta:g}) = {scaled:g}, below 0; use the rule "
                        f"{other!r}, a batch of at most {largest}, or {field} of at least {least_beta:g}"
                    )

    def growth(self, *, examples: Number, global_batch: Number, warmup: WarmupState) -> tf.Tensor:
        """The growth that the learning rate follows: k, or on the way there during a warm-up.

        Linear in examples from `warmup.previous_growth` to k if k is larger (Goyal et al., arXiv 1706.02677,
        who warm up from the small batch's learning rate); a smaller k applies at once.

        Args:
          examples: drawn before this step.
          global_batch: of this step.
          warmup: the last change of the batch.

        Returns:
          float64 scalar; also for Python numbers.
        """
        target = _float64(global_batch) / self.first_batch
        if not self.warmup_examples:
            return target
        before = _float64(warmup.previous_growth)
        passed = (_float64(examples) - _float64(warmup.changed_at_examples)) / self.warmup_examples
        passed = tf.clip_by_value(passed, 0.0, 1.0)
        return tf.where(target > before, (1.0 - passed) * before + passed * target, target)

    def hyperparameters(
        self,
        settings: Adam,
        *,
        examples: tf.Tensor,
        global_batch: tf.Tensor,
        growth: tf.Tensor,
        plateau_factor: tf.Tensor,
    ) -> Hyperparameters:
        """What one optimizer uses in one step.

        Args:
          settings: of the optimizer, for the first batch.
          examples: int64 scalar, drawn before this step.
          global_batch: int32 scalar, examples of this step.
          growth: float64 scalar, what `growth` gives.
          plateau_factor: float64 scalar, the state "factor" of the optimizer's schedule if that is a
            `MetricSchedule`; else it is not used.
        """
        rule = RULES[self.rule]
        k = _float64(global_batch) / self.first_batch
        learning_rate = _float64(settings.learning_rate) * _float64(growth) ** rule.learning_rate
        if isinstance(settings.schedule, MetricSchedule):
            learning_rate *= _float64(plateau_factor)
        elif settings.schedule is not None:
            learning_rate *= settings.schedule(_float64(examples), self.examples_per_epoch)
        weight_decay = _float64(settings.weight_decay)
        if self.scale_weight_decay:
            weight_decay *= k ** (1.0 - rule.learning_rate)
        return Hyperparameters(
            learning_rate=learning_rate,
            beta1=_scaled_beta(settings.beta1, k, rule.beta1),
            beta2=_scaled_beta(settings.beta2, k, rule.beta2),
            epsilon=_float64(settings.epsilon) * k**rule.epsilon,
            weight_decay=weight_decay,
        )

    def ema_decay(self, decay: float, global_batch: Number) -> tf.Tensor:
        """float64 scalar: the decay of a moving average at this batch, `decay` being the first batch's."""
        k = _float64(global_batch) / self.first_batch
        return _float64(decay) ** (k if self.scale_ema_decay else 1.0)


def _scaled_beta(beta: float, k: tf.Tensor, power: float) -> tf.Tensor:
    if not power:
        return _float64(beta)  # 1 - (1 - beta) would lose the last bits
    # `check` has refused what is below 0, except for rounding.
    return tf.maximum(1.0 - k**power * (1.0 - beta), 0.0)


def _float64(value: Number) -> tf.Tensor:
    # tf.cast alone would first make a Python float a float32.
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)
