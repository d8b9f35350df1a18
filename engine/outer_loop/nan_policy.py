"""What a run does about a loss or gradient that is not finite (`Experiment.on_non_finite`).

stop      The run ends with exit code 3.
skip      The phase concerned is not updated, on any replica. Moving statistics, spectral vectors and the
          task's own state go back to their values before the step, because they may hold the bad numbers.
          Other phases of the step are updated if they are finite. The batch counts as drawn.
restore   Weights, moments and everything else go back to the last checkpoint; step and position stay. So
          training continues with the batch after the bad one and loses what it learned since the checkpoint.
          Which checkpoint that is depends on SAVE_EVERY and on earlier interruptions.

Gradients that overflow float16 because the loss scale was too high are handled by
`engine.inner_loop.loss_scale`, not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from engine.inner_loop.train_state import TrainState

MAX_SKIPPED_IN_A_ROW = 10
MAX_RESTORED = 3
"""For a whole run: one that diverged this often would diverge again."""

_SKIPPED, _IN_A_ROW, _RESTORED = "non_finite/skipped", "non_finite/in_a_row", "non_finite/restored"


def initial_counts() -> dict[str, float]:
    """Initial values of the counters, by name."""
    return {_SKIPPED: 0.0, _IN_A_ROW: 0.0, _RESTORED: 0.0}


class NanPolicy:
    """Counts steps that were not finite and decides whether the run may continue.

    All its state is in the variables, which checkpoints hold.

    Args:
      policy: one of `engine.experiment.POLICIES`.
      variables: float64 scalars by name; among them those of `initial_counts`.

    Attributes:
      policy: as given.
    """

    def __init__(self, policy: str, variables: Mapping[str, tf.Variable]):
        self.policy = policy
        self._variables = variables

    @property
    def skipped(self) -> int:
        """Steps of the run in which a phase was skipped."""
        return self._read(_SKIPPED)

    def after_loop(self, *, finite: bool, steps: int) -> None:
        """Counts the steps of a call of the compiled loop.

        Args:
          finite: whether the last of them was finite; the loop ends with the first that is not.
          steps: how many steps the call took.
        """
        if self.policy != "skip":
            return
        if finite:
            self._variables[_IN_A_ROW].assign(0.0)
            return
        self._variables[_IN_A_ROW].assign(1.0 if steps > 1 else self._read(_IN_A_ROW) + 1.0)
        self._variables[_SKIPPED].assign_add(1.0)

    @contextlib.contextmanager
    def keep_position(self, train_state: TrainState) -> Iterator[None]:
        """Keeps step, position, best evaluation and counters while the block restores a checkpoint."""
        kept = [train_state.step, train_state.examples, train_state.best]
        kept += [self._variables[name] for name in initial_counts()]
        values = [variable.numpy() for variable in kept]
        yield
        for variable, value in zip(kept, values, strict=True):
            variable.assign(value)
        self._variables[_RESTORED].assign_add(1.0)

    def stop_reason(self, *, saved_at: int | None) -> str | None:
        """Decides whether the run must end after a step that was not finite.

        Args:
          saved_at: examples at the last checkpoint; None if there is none.

        Returns:
          None if the run continues; otherwise a few words for the error message, which may be empty.
        """
        if self.policy == "skip":
            too_often = self._read(_IN_A_ROW) > MAX_SKIPPED_IN_A_ROW
            return f"in more than {MAX_SKIPPED_IN_A_ROW} steps in a row" if too_often else None
        if self.policy == "restore" and saved_at is not None:
            too_often = self._read(_RESTORED) >= MAX_RESTORED
            return f"again after {MAX_RESTORED} returns to a checkpoint" if too_often else None
        return ""

    def _read(self, name: str) -> int:
        return int(self._variables[name].numpy())
