"""What global batch a step draws: constant, piecewise or geometric; `adaptive_batch.py` has the rest.

A configuration holds a number, a text or a `BatchGrowth`; `resolve_batch_schedule` makes a `BatchSchedule`
of it, which the trainer asks before each step. What a schedule remembers is a dictionary of floats that
the trainer keeps in checkpoints; every method is a pure function of it.
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
from collections.abc import Collection, Mapping

from engine.batching.noise_scale import NoiseScaleValue
from engine.durations import Duration, examples_of
from engine.errors import ConfigurationError

State = Mapping[str, float]


class BatchSchedule(abc.ABC):
    """The global batch of every step, in examples.

    Attributes:
      sizes: every global batch it can take, each once, the first one first.
      pieces: (examples at which it starts, global batch) in order; the start is None where training
        decides it.
      decide_every_examples: how often `after_noise_scale` is due; 0 is never.
    """

    sizes: tuple[int, ...]
    pieces: tuple[tuple[int | None, int], ...]
    decide_every_examples: int = 0

    @abc.abstractmethod
    def batch(self, examples: int, state: State) -> int:
        """The global batch of the step that starts at `examples`."""

    @abc.abstractmethod
    def entry(self, size: int) -> str:
        """What the user wrote that led to the global batch `size`, to be quoted in errors."""

    def initial_state(self) -> dict[str, float]:
        """What is remembered at the start of a run: nothing for a function of position."""
        return {}

    def next_start(self, examples: int) -> int | None:
        """Where the piece after the one at `examples` starts; None where no position starts one."""
        del examples
        return None

    def check(self, *, phases: Collection[str], evaluate_every: int) -> None:
        """Refuses a run of a task with these phases in which the schedule could never decide.

        Raises:
          ConfigurationError: no such phase, or no evaluations before the end (`evaluate_every` is 0).
        """
        del phases, evaluate_every

    def after_evaluation(self, state: State, metrics: Mapping[str, float]) -> dict[str, float]:
        """The state after an evaluation that gave `metrics`."""
        del metrics
        return dict(state)

    def after_noise_scale(self, state: State, scales: Mapping[str, NoiseScaleValue]) -> dict[str, float]:
        """The state after a decision on the noise scales by phase, due each `decide_every_examples`."""
        del scales
        return dict(state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piecewise(BatchSchedule):
    """A function of position. The step that starts at e examples takes the piece that holds e.

    Args:
      pieces: (examples at which it starts, global batch), starts rising from 0.
      entries: of each piece, what the user wrote.
    """

    pieces: tuple[tuple[int, int], ...]
    entries: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(size for _, size in self.pieces))

    def batch(self, examples: int, state: State) -> int:
        del state
        return self.pieces[self._begun(examples) - 1][1]

    def next_start(self, examples: int) -> int | None:
        begun = self._begun(examples)
        return self.pieces[begun][0] if begun < len(self.pieces) else None

    def entry(self, size: int) -> str:
        return self.entries[[piece[1] for piece in self.pieces].index(size)]

    def _begun(self, examples: int) -> int:
        return bisect.bisect_right(self.pieces, examples, key=lambda piece: piece[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchGrowth(abc.ABC):
    """Settings of a schedule whose sizes are start * factor^n, rounded, up to a maximum.

    Args:
      start: first global batch, for which the learning rates were chosen.
      factor: from one rung to the next, above 1; may be fractional.
      maximum: largest global batch, and the last rung.
    """

    start: int
    factor: float = 2.0
    maximum: int

    def __post_init__(self):
        if self.start < 1:
            raise self._refusal("start", "must be at least 1; raise it")
        if not self.factor > 1:
            raise self._refusal("factor", "must be above 1; 2 doubles the batch")
        if self.maximum < self.start:
            raise self._refusal("maximum", f"must not be below start = {self.start}; raise it")

    @abc.abstractmethod
    def resolve(self, examples_per_epoch: int) -> BatchSchedule:
        """The schedule on a data set of so many training examples.

        Raises:
          ConfigurationError: a batch larger than the data set.
        """
        if self.maximum > examples_per_epoch:
            raise self._refusal(
                "maximum", f"more than the {examples_per_epoch} training examples there are; lower it"
            )

    def entry(self, size: int) -> str:
        settings = f"start={self.start}, factor={self.factor}, maximum={self.maximum}"
        return f"{type(self).__name__}({settings}) rung {size}"

    def _powers(self) -> dict[int, int]:
        """From size to the first n that start * factor^n rounds to; sizes rise."""
        powers, power = {self.start: 0}, 0
        while self.maximum not in powers:
            power += 1
            powers.setdefault(round(min(self.maximum, self.start * self.factor**power)), power)
        return powers

    def _refusal(self, name: str, why: str) -> ConfigurationError:
        return ConfigurationError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: {why}")

    def _period(self, every: Duration, *, examples_per_epoch: int = 10**9) -> int:
        name = f"{type(self).__name__}.every"
        period = examples_of(every, examples_per_epoch=examples_per_epoch, name=name)
        if period < 1:
            raise self._refusal("every", "must be at least one example; write such as '20ep'")
        return period


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(BatchGrowth):
    """AdaBatch (Devarakonda et al., arXiv 1712.02029): start * factor^n from n * every examples on.

    Args:
      every: length of a rung, such as "20ep". A size to which several n round lasts as many times longer.
    """

    every: Duration

    def __post_init__(self):
        super().__post_init__()
        self._period(self.every)

    def resolve(self, examples_per_epoch: int) -> Piecewise:
        super().resolve(examples_per_epoch)
        every = self._period(self.every, examples_per_epoch=examples_per_epoch)
        powers = self._powers()
        pieces = tuple((power * every, size) for size, power in powers.items())
        return Piecewise(pieces=pieces, entries=tuple(self.entry(size) for size in powers))


def resolve_batch_schedule(setting: int | str | BatchGrowth, *, examples_per_epoch: int) -> BatchSchedule:
    """Reads `4`, `"4"`, `"0:1, 4000:2, 20ep:8"` (position: global batch), or a `BatchGrowth`.

    Raises:
      ConfigurationError: quotes the entry or the setting that is wrong.
    """
    if isinstance(setting, BatchGrowth):
        return setting.resolve(examples_per_epoch)
    entries = [entry.strip() for entry in str(setting).split(",")]
    pieces = []
    for entry in entries:
        constant = len(entries) == 1 and ":" not in entry
        position, colon, size = ("0", ":", entry) if constant else entry.partition(":")
        if not colon or not size.strip().isdecimal() or int(size) < 1:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} is not 'position: global batch' with a batch of at least 1; "
                "write 4, or '0:1, 4000:2, 20ep:8'"
            )
        name = f"BATCH_SCHEDULE {entry!r}"
        start = examples_of(position.strip(), examples_per_epoch=examples_per_epoch, name=name)
        if start <= pieces[-1][0] if pieces else start != 0:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} does not rise; the first position is 0 and each later one is "
                "larger than the one before"
            )
        if int(size) > examples_per_epoch:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} asks for more than the {examples_per_epoch} training "
                "examples there are; lower the batch"
            )
        pieces.append((start, int(size)))
    return Piecewise(pieces=tuple(pieces), entries=tuple(entries))
