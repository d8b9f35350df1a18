"""Warnings of learning rates that fall to 0 before the run ends, or change with the length of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling
from engine.optimizers import Optimizer, RelativeSchedule
from engine.outer_loop.run_plan import RunPlan
from engine.task import Task

_SAMPLES = 256  # positions that are tried before the exact one is searched between two of them


@dataclasses.dataclass(frozen=True)
class ZeroRates:
    """Phases whose learning rate is 0 from some position of the run to its end.

    Attributes:
      starts: name of the phase -> the position, in examples.
      total_examples: of the run.
      examples_per_epoch: training examples in one epoch.
    """

    starts: Mapping[str, int]
    total_examples: int
    examples_per_epoch: int

    def plan_lines(self) -> list[str]:
        """A warning for each position, to be read before training."""
        return [
            f"the learning rate of {', '.join(phases)} is 0 from example {start} "
            f"(epoch {start / self.examples_per_epoch:g}) on, but the run ends at {self.total_examples}: it "
            "learns nothing in between; lower TOTAL_EXAMPLES, or lengthen the learning-rate schedule "
            "(lengths such as '50%' follow TOTAL_EXAMPLES)"
            for start, phases in self._by_start().items()
        ]

    def lines_between(self, before: int, after: int) -> list[str]:
        """A warning for each of these positions that training has reached.

        Args:
          before: examples drawn before the last steps.
          after: examples drawn after them.
        """
        return [
            f"warning: from here on the learning rate of {', '.join(phases)} is 0"
            for start, phases in self._by_start().items()
            if before < start <= after
        ]

    def _by_start(self) -> dict[int, list[str]]:
        phases: dict[int, list[str]] = {}
        for phase, start in sorted(self.starts.items(), key=lambda item: item[1]):
            phases.setdefault(start, []).append(phase)
        return phases


def find_zero_rates(plan: RunPlan, task: Task) -> ZeroRates:
    """Finds the learning rates that a schedule by position lets end at 0.

    Args:
      plan: the settings, resolved.
      task: its phases and optimizers.
    """
    # Where the last step starts, at the earliest.
    last = max(0, plan.total_examples - max(plan.batches))
    starts = {}
    for phase in task.phases():
        settings = task.optimizers[phase.optimizer]
        factor = _factor(plan.scaling, settings)
        start = _zero_from(factor, last) if settings.learning_rate else None
        if start is not None:
            starts[phase.name] = start
    return ZeroRates(starts, plan.total_examples, plan.scaling.examples_per_epoch)


def changed_rate_lines(plan: RunPlan, task: Task, *, earlier_total: int, examples: int) -> list[str]:
    """What a changed length of the run does to learning-rate schedules that are relative to it.

    Args:
      plan: the settings, resolved.
      task: its phases and optimizers.
      earlier_total: examples of the run before the change.
      examples: position from which the run continues.
    """
    earlier_scaling = dataclasses.replace(plan.scaling, total_examples=earlier_total)
    changes: list[str] = []
    for phase in task.phases():
        settings = task.optimizers[phase.optimizer]
        if isinstance(settings.schedule, RelativeSchedule):
            before, after = (_factor(each, settings)(examples) for each in (earlier_scaling, plan.scaling))
            if before != after:
                changes.append(f"{phase.name} {before:.3g} to {after:.3g}")
    if not changes or examples >= plan.total_examples:
        return []
    return [
        f"TOTAL_EXAMPLES has changed from {earlier_total} to {plan.total_examples} examples, and the "
        "learning-rate schedule follows it: factor on the learning rate here, at example "
        f"{examples}: {', '.join(changes)}"
    ]


def _factor(scaling: BatchScaling, settings: Optimizer) -> Callable[[int], float]:
    """The factor of an optimizer's schedule on its learning rate, by position."""
    schedule = scaling.position_schedule(settings)
    if schedule is None:
        return lambda examples: 1.0
    return lambda examples: float(schedule(tf.constant(examples, tf.float64), scaling.examples_per_epoch))


def _zero_from(factor: Callable[[int], float], last: int) -> int | None:
    """The first position from which a factor is 0 up to the position `last`; None if it is not 0 there."""
    if factor(last):
        return None
    positions = sorted({last * number // _SAMPLES for number in range(_SAMPLES + 1)})
    not_zero = [position for position in positions if factor(position)]
    if not not_zero:
        return 0
    low = not_zero[-1]
    high = positions[positions.index(low) + 1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if factor(middle) else (low, middle)
    return high
