"""All errors of the engine. None needs TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class ConfigurationError(ValueError):
    """A setting of the user cannot work.

    The message is one line: `what: what is wrong; how to mend it`. Programs print it and exit with code 2.
    """


def check_at_least(least: float, *, of: str, **settings: float) -> None:
    """Checks settings of a class.

    Args:
      least: the smallest allowed value.
      of: name of the class.
      **settings: name and value of each.

    Raises:
      ConfigurationError: a value is smaller than `least` or not finite.
    """
    for name, value in settings.items():
        if not least <= value < math.inf:  # False for NaN
            raise ConfigurationError(
                f"{of}.{name} = {value}: must be at least {least}, and finite; change it"
            )


class RunInterruptedError(RuntimeError):
    """A signal stopped the run early; a checkpoint is saved. Programs exit with code 42."""


class RunsFailedError(RuntimeError):
    """Some of several runs failed. Programs exit with the code of the first of them.

    Args:
      message: names them.
      code: the exit code.
    """

    def __init__(self, message: str, *, code: int):
        super().__init__(message)
        self.code = code


class WorkerLostError(RuntimeError):
    """Another worker has ended or does not answer. Programs exit with code 42."""

    def __init__(self) -> None:
        super().__init__(
            "another worker has ended or does not answer (its own output says why); start the same command "
            "again on all workers to resume from the last checkpoint, if there is one"
        )


def not_finite(metrics: Mapping[str, float]) -> str:
    """The names, with phase and term, of the values that are not finite."""
    return ", ".join(name for name, value in metrics.items() if not math.isfinite(value))


class DivergenceError(RuntimeError):
    """A loss or gradient is not finite. The message names the phase, the value and the step.

    Programs exit with code 3.

    Args:
      metrics: of the step.
      step: its number, counted from 1.
      saved_at: examples at the last checkpoint; None if there is none.
      why: further words for the message.
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
    """The replicas no longer hold the same values; these were not saved. Programs exit with code 3.

    Args:
      variable: the first that differs, by its name in checkpoints.
      replicas: those whose values differ from the majority's; all of them if there is no majority.
      others: how many more variables differ.
      examples: position of the run at which it was found.
      saved_at: examples at the last checkpoint, whose values were compared too; None if there is none.
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
            "Start the same command again to resume from there; if it happens again on the same replica, "
            "test the memory of that device"
        )


def _saved(saved_at: int | None) -> str:
    if saved_at is None:
        return "no checkpoint was written yet"
    return f"the checkpoint at {saved_at} examples was saved before that"


class OutOfMemoryError(RuntimeError):
    """A step ran out of memory. The state in memory may be wrong; the last checkpoint is right.

    Args:
      examples: position of the run at which the step began.
      micro_batch: micro-batch size per replica.
    """

    def __init__(self, *, examples: int, micro_batch: int):
        super().__init__(
            f"out of memory at {examples} examples with micro-batches of {micro_batch} per replica"
        )
        self.examples = examples
        self.micro_batch = micro_batch
