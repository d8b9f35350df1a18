"""How a run can end before its total."""

from __future__ import annotations

import math
from collections.abc import Mapping


class Interrupted(RuntimeError):
    """A signal ended the run early; everything is saved."""


class WorkerLost(RuntimeError):
    """Another worker has ended or does not answer; all go on together from the last checkpoint."""

    def __init__(self):
        super().__init__(
            "another worker has ended or does not answer (its own output says why); start the same command "
            "again on all workers: they go on from the last checkpoint, if there is one"
        )


def not_finite(metrics: Mapping[str, float]) -> str:
    """The names, with phase and term, of what is not finite."""
    return ", ".join(name for name, value in metrics.items() if not math.isfinite(value))


class Diverged(RuntimeError):
    """A loss or gradient is not finite. The message names the phase, the value and the step.

    Args:
      metrics: of the step.
      step: its number, counted from 1.
      saved_at: examples at the last checkpoint; None if there is none.
      why: what more is to be said than that it happened.
    """

    def __init__(self, metrics: Mapping[str, float], *, step: int, saved_at: int | None, why: str = ""):
        saved = (
            "no checkpoint was written yet"
            if saved_at is None
            else f"the checkpoint at {saved_at} examples is from before it"
        )
        super().__init__(
            f"diverged in step {step}: {not_finite(metrics)} not finite{why and ' '}{why}; {saved}. Lower "
            "LEARNING_RATE or use PRECISION = 'float32'"
        )


class OutOfMemory(RuntimeError):
    """A step did not fit into memory; the state in memory cannot be trusted, the last checkpoint can.

    Args:
      examples: where the step began.
      micro_batch: examples each replica computed on at once.
    """

    def __init__(self, *, examples: int, micro_batch: int):
        super().__init__(f"out of memory at {examples} examples with {micro_batch} at once on a replica")
        self.examples = examples
        self.micro_batch = micro_batch
