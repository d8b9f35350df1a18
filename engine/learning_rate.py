"""The learning rate of a step: the optimizer's own, its schedule, and the rule for the batch size."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from engine.task import Adam, ConfigurationError

RULES = {"none": 0.0, "linear": 1.0, "square_root": 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Learning rate as a function of optimizer, position and global batch.

    Args:
      examples_per_epoch: for schedules in epochs.
      first_batch: the global batch for which the optimizer's learning rate was chosen: the first of
        the batch schedule.
      rule: what a batch k times larger does to the learning rate: "none" nothing, "linear" times k
        (Goyal et al., arXiv 1706.02677), "square_root" times sqrt(k) (Krizhevsky, arXiv 1404.5997).
    """

    examples_per_epoch: int
    first_batch: int
    rule: str = "none"

    def __post_init__(self):
        if self.rule not in RULES:
            raise ConfigurationError(
                f"LEARNING_RATE_RULE = {self.rule!r}: unknown; use one of {', '.join(RULES)}"
            )

    def __call__(self, settings: Adam, examples: tf.Tensor, global_batch: tf.Tensor) -> tf.Tensor:
        """float64 scalar; `examples` and `global_batch` are integer scalars."""
        growth = tf.cast(global_batch, tf.float64) / self.first_batch
        rate = tf.constant(settings.learning_rate, tf.float64) * growth ** RULES[self.rule]
        if settings.schedule is not None:
            rate *= settings.schedule(tf.cast(examples, tf.float64), self.examples_per_epoch)
        return rate
