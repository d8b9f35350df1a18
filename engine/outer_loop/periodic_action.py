"""Things that happen now and then during training: log, evaluate, sample, save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class PeriodicAction:
    """Something to do when the counter of examples crosses a multiple of `every_examples`.

    A step draws a whole batch, so the counter may jump over a multiple; crossing it counts. The end of
    the run counts too, so 0 means: only at the end.

    Args:
      every_examples: the period, in examples.
      fire: what to do.
    """

    every_examples: int
    fire: Callable[[], None]

    def is_due(self, before: int, after: int, total: int) -> bool:
        """Whether it fires after a step that took the counter from `before` to `after`."""
        crossed = self.every_examples and before // self.every_examples < after // self.every_examples
        return bool(crossed) or after >= total

    def next_due(self, examples: int, total: int) -> int:
        """The first counter value after `examples` at which it fires."""
        if not self.every_examples:
            return total
        return min(total, (examples // self.every_examples + 1) * self.every_examples)


def steps_until_next(
    actions: Sequence[PeriodicAction], *, examples: int, total: int, boundary: int | None, global_batch: int
) -> int:
    """Steps of `global_batch` that can run in one go: up to the first that crosses an action's
    multiple, a batch boundary or the total."""
    stop = min([action.next_due(examples, total) for action in actions] + [total])
    if boundary is not None:
        stop = min(stop, boundary)
    return max(1, -(-(stop - examples) // global_batch))
