"""Learning-rate schedules: examples drawn -> factor on the learning rate.

Every schedule is called inside the compiled step with the examples drawn before that step (a float64
scalar tensor) and the examples per epoch (an integer), and returns a float64 scalar.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from engine.durations import Duration, examples_of
from engine.task import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearDecay:
    """Constant, then linearly to zero, in steps of one epoch as the published pix2pix does.

    In epoch e, counted from 1, the factor is  1 - max(0, e + ahead - constant) / (decay + 1)  with both
    lengths in epochs. The reference has published two conventions: it moves the schedule at the end of
    each epoch ("end_of_epoch", ahead = 0: today's and before July 2020; the last epoch still learns a
    little) or at its start ("start_of_epoch", ahead = 1: in between).

    Args:
      constant: how long the learning rate stays, such as "100ep".
      decay: how long it then falls, such as "100ep".
      convention: "end_of_epoch" or "start_of_epoch".
    """

    constant: Duration = "100ep"
    decay: Duration = "100ep"
    convention: str = "end_of_epoch"

    def __post_init__(self):
        if self.convention not in ("end_of_epoch", "start_of_epoch"):
            raise ConfigurationError(
                f"LinearDecay.convention = {self.convention!r}: unknown; use 'end_of_epoch' or "
                "'start_of_epoch'"
            )
        for name in ("constant", "decay"):
            examples_of(getattr(self, name), examples_per_epoch=1, name=f"LinearDecay.{name}")

    def __call__(self, examples: tf.Tensor, examples_per_epoch: int) -> tf.Tensor:
        constant_epochs, decay_epochs = (
            examples_of(getattr(self, name), examples_per_epoch=examples_per_epoch, name=name)
            / examples_per_epoch
            for name in ("constant", "decay")
        )
        ahead = 0.0 if self.convention == "end_of_epoch" else 1.0
        epoch = tf.floor(examples / examples_per_epoch) + 1.0
        decayed = tf.nn.relu(epoch + (ahead - constant_epochs)) / (decay_epochs + 1.0)
        return tf.nn.relu(1.0 - decayed)
