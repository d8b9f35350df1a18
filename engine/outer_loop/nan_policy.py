"""What a run does about a loss or gradient that is not finite.

stop      the run ends (exit 3).
skip      the phase concerned is not updated, on any replica; moving statistics, spectral vectors and the
          task's own state go back to the step's start, as they may have taken the bad numbers in. Other
          phases of the step, if finite, are updated. The batch counts as drawn.
restore   weights, moments and all else go back to the last checkpoint, while step and position stay:
          training goes on with the batch after the bad one, and what was learned since is lost. Which
          checkpoint that is depends on SAVE_EVERY and on interruptions.

Gradients that overflow float16 because their loss was scaled too high are not meant: see
`engine.inner_loop.loss_scale`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from engine.inner_loop.train_state import TrainState

MOST_SKIPPED_IN_A_ROW = 10
MOST_RESTORED = 3
"""In a whole run; what has diverged that often would go on doing so."""

_SKIPPED, _IN_A_ROW, _RESTORED = "non_finite/skipped", "non_finite/in_a_row", "non_finite/restored"


def initial_counts() -> dict[str, float]:
    """Every count by name, at the start of a run."""
    return {_SKIPPED: 0.0, _IN_A_ROW: 0.0, _RESTORED: 0.0}


class NanPolicy:
    """Counts what was not finite; nothing is kept outside the variables.

    Args:
      policy: one of `POLICIES`.
      variables: float64 scalars by the names of `initial_counts`, among others.
    """

    def __init__(self, policy: str, variables: Mapping[str, tf.Variable]):
        self.policy = policy
        self._variables = variables

    @property
    def skipped(self) -> int:
        """Steps of the run in which something was skipped."""
        return self._read(_SKIPPED)

    def after_loop(self, *, finite: bool, steps: int) -> None:
        """Takes in a call of the compiled loop, which ends with the first step that is not finite."""
        if self.policy != "skip":
            return
        if finite:
            self._variables[_IN_A_ROW].assign(0.0)
            return
        self._variables[_IN_A_ROW].assign(1.0 if steps > 1 else self._read(_IN_A_ROW) + 1.0)
        self._variables[_SKIPPED].assign_add(1.0)

    @contextlib.contextmanager
    def going_back(self, train_state: TrainState) -> Iterator[None]:
        """Around the return to a checkpoint: position, best evaluation and counts stay, one return more."""
        stay = [train_state.step, train_state.examples, train_state.best]
        stay += [self._variables[name] for name in initial_counts()]
        values = [variable.numpy() for variable in stay]
        yield
        for variable, value in zip(stay, values, strict=True):
            variable.assign(value)
        self._variables[_RESTORED].assign_add(1.0)

    def why_stop(self, *, saved_at: int | None) -> str | None:
        """Why a run in which something was not finite ends now, as a few words; None if it goes on.

        Args:
          saved_at: examples at the last checkpoint; None if there is none.
        """
        if self.policy == "skip":
            many = self._read(_IN_A_ROW) > MOST_SKIPPED_IN_A_ROW
            return f"in more than {MOST_SKIPPED_IN_A_ROW} steps in a row" if many else None
        if self.policy == "restore" and saved_at is not None:
            many = self._read(_RESTORED) >= MOST_RESTORED
            return f"again after {MOST_RESTORED} returns to a checkpoint" if many else None
        return ""

    def _read(self, name: str) -> int:
        return int(self._variables[name].numpy())
