"""Actions that a run repeats at multiples of a period: log, evaluate, sample, save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class PeriodicAction:
    """An action that is due when the number of examples reaches or crosses a multiple of a period.

    A step draws a whole batch, so the number of examples may jump over a multiple. Every action is also due
    at the end of the run.

    Attributes:
      every_examples: the period in examples; 0 means only at the end.
      run: the action.
    """

    every_examples: int
    run: Callable[[], None]

    def is_due(self, before: int, after: int, total: int) -> bool:
        """Whether the action is due after steps that drew the examples from `before` to `after`."""
        crossed = self.every_examples and before // self.every_examples < after // self.every_examples
        return bool(crossed) or after >= total

    def next_due(self, examples: int, total: int) -> int:
        """The first position after `examples` at which the action is due."""
        if not self.every_examples:
            return total
        return min(total, (examples // self.every_examples + 1) * self.every_examples)


def steps_until_next(
    actions: Sequence[PeriodicAction], *, examples: int, total: int, boundary: int | None, global_batch: int
) -> int:
    """How many steps to run until an action is due, the batch may change, or the run ends; at least 1.

    Args:
      actions: of the run.
      examples: the current position.
      total: examples of the whole run.
      boundary: position of the next change of the batch; None if there is none.
      global_batch: examples drawn by each step.
    """
    stop = min([action.next_due(examples, total) for action in actions] + [total])
    if boundary is not None:
        stop = min(stop, boundary)
    return max(1, -(-(stop - examples) // global_batch))
