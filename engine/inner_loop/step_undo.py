"""Undoes what a step that was not finite has moved, besides the weights of its phases."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from engine.inner_loop.phase_update import APPLIED
from engine.inner_loop.train_state import TrainState


def moved_variables(train_state: TrainState) -> list[tf.Variable]:
    """The variables that a step moves without an update: moving statistics, spectral vectors, task state."""
    networks = train_state.networks.values()
    moved = [weight.value for network in networks for weight in network.non_trainable_weights]
    return moved + list(train_state.task_state.values())


class StepUndo:
    """Restores variables after a step in which a phase was not updated; called in replica context.

    Args:
      variables: to restore.
    """

    def __init__(self, variables: Sequence[tf.Variable]):
        self._variables = variables

    def read(self) -> list[tf.Tensor]:
        """The values before the step."""
        return [variable.read_value() for variable in self._variables]

    def restore(self, outcome: tf.Tensor, before: Sequence[tf.Tensor]) -> None:
        """Restores this replica's copies unless all phases were updated.

        Args:
          outcome: of the step; see `engine.inner_loop.phase_update.APPLIED`.
          before: as `read` returned them.
        """

        def assign() -> tf.Tensor:
            for variable, value in zip(self._variables, before, strict=True):
                tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
            return tf.constant(True)

        tf.cond(outcome > APPLIED, assign, lambda: tf.constant(True))
