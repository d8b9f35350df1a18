"""Batch schedules by position: constant, piecewise or geometric; `engine.adaptive_batch` has the others.

A configuration holds a number, a string or a `BatchGrowth`. `resolve_batch_schedule` turns it into a
`BatchSchedule`, which the trainer asks for the batch of each step. The state of a schedule is a dictionary
of floats that the trainer keeps in checkpoints; every method is a pure function of it.
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
import re
from collections.abc import Collection, Mapping

from engine.batching.noise_scale import NoiseScaleValue
from engine.durations import Duration, examples_of
from engine.errors import ConfigurationError

State = Mapping[str, float]

_BATCH = re.compile(r"([0-9]+)(\s+per\s+replica)?")


class BatchSchedule(abc.ABC):
    """The global batch of every step, in examples.

    Attributes:
      replicas: those that it was resolved for; None if it does not depend on them.
    """

    replicas: int | None = None

    @property
    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """All global batches that it can take, without repetition; the first batch of the run comes first."""

    @property
    @abc.abstractmethod
    def pieces(self) -> tuple[tuple[int | None, int], ...]:
        """(examples at which it starts, global batch) in order; the start is None if training decides it."""

    @property
    def decide_every_examples(self) -> int:
        """How often `after_noise_scale` is due; 0 is never."""
        return 0

    @abc.abstractmethod
    def batch(self, examples: int, state: State) -> int:
        """The global batch of the step that starts at `examples`."""

    @abc.abstractmethod
    def entry(self, size: int) -> str:
        """The user's setting that leads to the global batch `size`, for error messages."""

    def initial_state(self) -> dict[str, float]:
        """The state at the start of a run; empty if the batch depends on the position only."""
        return {}

    def next_start(self, examples: int) -> int | None:
        """Where the piece after the one at `examples` starts; None after the last, or if training decides."""
        del examples
        return None

    def check(self, *, phases: Collection[str], evaluate_every: int) -> None:
        """Checks that the schedule can decide in a run.

        Args:
          phases: names of the task's phases.
          evaluate_every: examples between evaluations; 0 is only at the end.

        Raises:
          ConfigurationError: it could never decide.
        """
        del phases, evaluate_every

    def after_evaluation(self, state: State, metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after an evaluation with these metrics, by name."""
        del metrics
        return dict(state)

    def after_noise_scale(self, state: State, scales: Mapping[str, NoiseScaleValue]) -> dict[str, float]:
        """The state after a decision on the noise scales, by phase."""
        del scales
        return dict(state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piecewise(BatchSchedule):
    """A schedule by position: a step that starts at e examples belongs to the piece that contains e.

    Attributes:
      starts: examples at which each piece starts, rising from 0.
      batches: global batch of each piece.
      entries: the user's setting for each piece.
      replicas: those that batches "per replica" were resolved for; None if there are none.
    """

    starts: tuple[int, ...]
    batches: tuple[int, ...]
    entries: tuple[str, ...]
    replicas: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """All global batches, without repetition, in order."""
        return tuple(dict.fromkeys(self.batches))

    @property
    def pieces(self) -> tuple[tuple[int | None, int], ...]:
        """(examples at which it starts, global batch) in order."""
        return tuple(zip(self.starts, self.batches, strict=True))

    def batch(self, examples: int, state: State) -> int:
        """The global batch of the step that starts at `examples`."""
        del state
        return self.batches[self._begun(examples) - 1]

    def next_start(self, examples: int) -> int | None:
        """Where the piece after the one at `examples` starts; None after the last."""
        begun = self._begun(examples)
        return self.starts[begun] if begun < len(self.starts) else None

    def entry(self, size: int) -> str:
        """The user's setting of the first piece with the global batch `size`."""
        return self.entries[self.batches.index(size)]

    def _begun(self, examples: int) -> int:
        """How many pieces start at or before `examples`."""
        return bisect.bisect_right(self.starts, examples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchGrowth(abc.ABC):
    """Settings of a schedule with the sizes start * factor^n, rounded, up to a maximum.

    Attributes:
      start: first global batch; the learning rates are set for it.
      factor: ratio of a size to the one before, above 1; may be fractional.
      maximum: largest global batch: the last size.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    start: int
    factor: float = 2.0
    maximum: int

    def __post_init__(self) -> None:
        if self.start < 1:
            raise self._refusal("start", "must be at least 1; raise it")
        if not self.factor > 1:
            raise self._refusal("factor", "must be above 1; 2 doubles the batch")
        if self.maximum < self.start:
            raise self._refusal("maximum", f"must not be below start = {self.start}; raise it")

    @abc.abstractmethod
    def resolve(self, examples_per_epoch: int) -> BatchSchedule:
        """The schedule for a data set of so many training examples.

        Raises:
          ConfigurationError: a batch is larger than the data set.
        """

    def entry(self, size: int) -> str:
        """The user's setting that leads to the global batch `size`, for error messages."""
        settings = f"start={self.start}, factor={self.factor}, maximum={self.maximum}"
        return f"{type(self).__name__}({settings}) rung {size}"

    def _check_data(self, examples_per_epoch: int) -> None:
        if self.maximum > examples_per_epoch:
            raise self._refusal(
                "maximum", f"more than the {examples_per_epoch} training examples that there are; lower it"
            )

    def _powers(self) -> dict[int, int]:
        """For each size, in rising order: the first n for which start * factor^n rounds to it."""
        powers, power = {self.start: 0}, 0
        while self.maximum not in powers:
            power += 1
            powers.setdefault(round(min(self.maximum, self.start * self.factor**power)), power)
        return powers

    def _refusal(self, name: str, why: str) -> ConfigurationError:
        return ConfigurationError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: {why}")

    def _period(self, every: Duration, *, examples_per_epoch: int = 10**9) -> int:
        """`every` in examples. The default epoch is so long that no part of it rounds to 0."""
        name = f"{type(self).__name__}.every"
        period = examples_of(every, examples_per_epoch=examples_per_epoch, name=name)
        if period < 1:
            raise self._refusal("every", "must be at least one example; write for example '20ep'")
        return period


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(BatchGrowth):
    """AdaBatch (Devarakonda et al., arXiv 1712.02029): start * factor^n from position n * every on.

    Attributes:
      every: how long each size lasts, such as "20ep"; k times as long if k values of n round to the size.
    """

    every: Duration

    def __post_init__(self) -> None:
        super().__post_init__()
        self._period(self.every)

    def resolve(self, examples_per_epoch: int) -> Piecewise:
        """The schedule for a data set of so many training examples.

        Raises:
          ConfigurationError: a batch is larger than the data set.
        """
        self._check_data(examples_per_epoch)
        every = self._period(self.every, examples_per_epoch=examples_per_epoch)
        powers = self._powers()
        return Piecewise(
            starts=tuple(power * every for power in powers.values()),
            batches=tuple(powers),
            entries=tuple(self.entry(size) for size in powers),
        )


def resolve_batch_schedule(
    setting: int | str | BatchGrowth, *, examples_per_epoch: int, replicas: int = 1
) -> BatchSchedule:
    """Makes the schedule of a setting.

    Args:
      setting: `4`, `"4"`, `"8 per replica"`, `"0:1, 4000:2, 20ep:8 per replica"` (position: global batch, or
        that of each replica), or a `BatchGrowth`.
      examples_per_epoch: training examples of the data set.
      replicas: number of replicas.

    Raises:
      ConfigurationError: an entry or setting is wrong; the message quotes it.
    """
    if isinstance(setting, BatchGrowth):
        return setting.resolve(examples_per_epoch)
    entries = [entry.strip() for entry in str(setting).split(",")]
    starts: list[int] = []
    batches = []
    is_per_replica = False
    for entry in entries:
        constant = len(entries) == 1 and ":" not in entry
        position, colon, size = ("0", ":", entry) if constant else entry.partition(":")
        match = _BATCH.fullmatch(size.strip())
        if not colon or not match or int(match[1]) < 1:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} is not 'position: global batch' with a batch of at least 1; "
                "write 4, '8 per replica', or '0:1, 4000:2, 20ep:8'"
            )
        batch = int(match[1]) * (replicas if match[2] else 1)
        is_per_replica |= bool(match[2])
        name = f"BATCH_SCHEDULE {entry!r}"
        start = examples_of(position.strip(), examples_per_epoch=examples_per_epoch, name=name)
        if start <= starts[-1] if starts else start != 0:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} does not rise; start at position 0 and make each later position "
                "larger than the one before"
            )
        if batch > examples_per_epoch:
            global_batch = f", a global batch of {batch} on {replicas} replicas," if match[2] else ""
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r}{global_batch} is more than the {examples_per_epoch} training "
                "examples that there are; lower the batch"
            )
        starts.append(start)
        batches.append(batch)
    return Piecewise(
        starts=tuple(starts),
        batches=tuple(batches),
        entries=tuple(entries),
        replicas=replicas if is_per_replica else None,
    )
