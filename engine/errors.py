"""Every error of the engine; none needs TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class ConfigurationError(ValueError):
    """Something the user set cannot work. The message is one line: what, where, how to mend."""


def check_at_least(least: float, *, of: str, **settings: float) -> None:
    """Raises ConfigurationError for a setting `of` a class that is too small or not finite."""
    for name, value in settings.items():
        if not least <= value < math.inf:  # NaN fits nowhere
            raise ConfigurationError(
                f"{of}.{name} = {value}: must be at least {least}, and finite; change it"
            )


class RunInterruptedError(RuntimeError):
    """A signal ended the run early; everything is saved."""


class WorkerLostError(RuntimeError):
    """Another worker has ended or does not answer; all go on together from the last checkpoint."""

    def __init__(self):
        super().__init__(
            "another worker has ended or does not answer (its own output says why); start the same command "
            "again on all workers: they go on from the last checkpoint, if there is one"
        )


def not_finite(metrics: Mapping[str, float]) -> str:
    """The names, with phase and term, of what is not finite."""
    return ", ".join(name for name, value in metrics.items() if not math.isfinite(value))


class DivergenceError(RuntimeError):
    """A loss or gradient is not finite. The message names the phase, the value and the step.

    Args:
      metrics: of the step.
      step: its number, counted from 1.
      saved_at: examples at the last checkpoint; None if there is none.
      why: what more is to be said than that it happened.
    """

    def __init__(self, metrics: Mapping[str, float], *, step: int, saved_at: int | None, why: str = ""):
        super().__init__(
            f"diverged in step {step}: {not_finite(metrics)} not finite{why and ' '}{why}; "
            f"{_saved(saved_at)}. Lower LEARNING_RATE or use PRECISION = 'float32'"
        )


class NonFiniteOutputError(RuntimeError):
    """A network's output has values that are not finite, so it cannot be shown or measured.

    Args:
      what: the picture or example, for the message.
    """

    def __init__(self, what: str):
        super().__init__(
            f"{what}: the network's output is not finite (NaN or infinity); choose an earlier checkpoint "
            "with --checkpoint, or train with a lower LEARNING_RATE or PRECISION = 'float32'"
        )


class ReplicaMismatchError(RuntimeError):
    """Replicas do not hold the same values any more; nothing was saved from them.

    Args:
      variable: the first that differs, by its name in checkpoints.
      replicas: those whose values differ from the majority's; all, if there is none.
      others: how many more variables differ.
      examples: where it was found.
      saved_at: examples at the last checkpoint, which was compared too; None if there is none.
    """

    def __init__(
        self, variable: str, *, replicas: Sequence[int], others: int, examples: int, saved_at: int | None
    ):
        names = ", ".join(map(str, replicas))
        alone = (
            f"replica {names} differs from the others" if len(replicas) == 1 else f"replicas {names} differ"
        )
        more = f" (and in {others} more)" if others else ""
        super().__init__(
            f"replicas differ at {examples} examples: {alone} in {variable}{more}; {_saved(saved_at)}. "
            "Start the same command again to go on from there; if it comes again on the same replica, test "
            "that device's memory"
        )


def _saved(saved_at: int | None) -> str:
    if saved_at is None:
        return "no checkpoint was written yet"
    return f"the checkpoint at {saved_at} examples is from before it"


class OutOfMemoryError(RuntimeError):
    """A step did not fit into memory; the state in memory cannot be trusted, the last checkpoint can.

    Args:
      examples: where the step began.
      micro_batch: examples each replica computed on at once.
    """

    def __init__(self, *, examples: int, micro_batch: int):
        super().__init__(f"out of memory at {examples} examples with {micro_batch} at once on a replica")
        self.examples = examples
        self.micro_batch = micro_batch
