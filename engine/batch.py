"""How many examples a step draws, and how they are laid over the replicas."""

from __future__ import annotations

import bisect
import dataclasses

from engine.durations import examples_of
from engine.task import ConfigurationError


@dataclasses.dataclass(frozen=True)
class BatchSchedule:
    """Piecewise constant: examples drawn -> global batch.

    The step that starts at e examples uses the schedule's value at e.

    Args:
      starts: examples at which each piece starts, rising from 0.
      sizes: global batch of each piece, in examples.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    def __call__(self, examples: int) -> int:
        return self.sizes[bisect.bisect_right(self.starts, examples) - 1]

    def next_start(self, examples: int) -> int | None:
        """Where the piece after the one at `examples` starts; None in the last piece."""
        index = bisect.bisect_right(self.starts, examples)
        return self.starts[index] if index < len(self.starts) else None


def parse_batch_schedule(text: int | str, *, examples_per_epoch: int) -> BatchSchedule:
    """Reads `4`, `"4"` or `"0:1, 4000:2, 20ep:8"` (position: global batch).

    Raises:
      ConfigurationError: quotes the entry that is wrong.
    """
    entries = [entry.strip() for entry in str(text).split(",")]
    starts, sizes = [], []
    for entry in entries:
        constant = len(entries) == 1 and ":" not in entry
        position, colon, size = ("0", ":", entry) if constant else entry.partition(":")
        if not colon or not size.strip().isdigit() or int(size) < 1:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} is not 'position: global batch' with a batch of at least 1; "
                "write 4, or '0:1, 4000:2, 20ep:8'"
            )
        starts.append(
            examples_of(
                position.strip(),
                examples_per_epoch=examples_per_epoch,
                name=f"BATCH_SCHEDULE {entry!r}",
            )
        )
        sizes.append(int(size))
        if starts[-1] <= starts[-2] if len(starts) > 1 else starts[-1] != 0:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} does not rise; the first position is 0 and each later one is "
                "larger than the one before"
            )
        if sizes[-1] > examples_per_epoch:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: {entry!r} asks for more than the {examples_per_epoch} training "
                "examples there are; lower the batch"
            )
    return BatchSchedule(tuple(starts), tuple(sizes))


def rows_of_replicas(global_batch: int, replicas: int) -> tuple[int, ...]:
    """How `experimental_distribute_dataset` cuts a global batch: ceil(batch / replicas) each, in order.

    The last replicas get what remains, which may be nothing: 7 on 3 is (3, 3, 1), 1 on 2 is (1, 0).
    """
    largest = -(-global_batch // replicas)
    return tuple(max(0, min(largest, global_batch - replica * largest)) for replica in range(replicas))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """One row of what `engine.doctor` prints and every log row states."""

    first_example: int
    global_batch: int
    replicas: int

    @property
    def per_replica_batch(self) -> int:
        """Examples on the fullest replica."""
        return rows_of_replicas(self.global_batch, self.replicas)[0]

    @property
    def accumulation(self) -> int:
        """Micro-batches whose gradients are added before one update; the whole batch is one."""
        return 1


def plan_batches(
    schedule: BatchSchedule, *, replicas: int, total_examples: int, static_shapes: bool
) -> list[BatchPlan]:
    """The plan of every piece of the schedule that a run of `total_examples` reaches.

    Raises:
      ConfigurationError: shapes must be static (TPU) and a batch does not divide by the replicas.
    """
    plans = [
        BatchPlan(first_example=start, global_batch=size, replicas=replicas)
        for start, size in zip(schedule.starts, schedule.sizes, strict=True)
        if start < total_examples or start == 0
    ]
    for plan in plans:
        if static_shapes and plan.global_batch % replicas:
            raise ConfigurationError(
                f"BATCH_SCHEDULE: a global batch of {plan.global_batch} does not divide by the {replicas} "
                f"TPU replicas, whose shapes are fixed; use a multiple of {replicas}"
            )
    return plans
