"""The batch schedule of a run as a table: micro-batches, steps, learning rates, memory."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from engine.batching.memory_model import MemoryModel
from engine.diagnosis.text_columns import columns
from engine.optimizers import Optimizer
from engine.outer_loop.run_plan import RunPlan
from engine.task import Task


def plan_table(plan: RunPlan, task: Task, memory: MemoryModel | None) -> list[str]:
    """A table with a row for each piece of the batch schedule, as lines of text.

    A size that training decides on has no position: its row says "when decided". The learning rates are
    those of the first and last step of the piece, without a warm-up.

    Args:
      plan: the settings, resolved.
      task: its phases have a column each.
      memory: as measured; None omits the column.
    """
    titles = ["from", "batch", "replicas", "micro-batch", "accumulation", "steps"]
    phases = task.phases()
    titles += [f"rate of {phase.name}" for phase in phases]
    titles += ["memory"] if memory else []
    rows = [titles]
    for start, size, steps in _pieces(plan):
        batch = plan.batches[size]
        rates = [_rates(plan, task.optimizers[phase.optimizer], start, size, steps) for phase in phases]
        sizes = (batch.global_batch, batch.replicas, batch.micro_batch, batch.accumulation)
        position = "when decided" if start is None else str(start)
        cells = [position, *map(str, sizes), "-" if steps is None else str(steps), *rates]
        rows.append(cells + ([f"{memory.at(batch.micro_batch) / 2**30:.2f} GiB"] if memory else []))
    return [
        "Batches: from which example on, global batch, ..., learning rate of each phase",
        *(f"  {line}" for line in columns(rows)),
    ]


def _pieces(plan: RunPlan) -> Iterator[tuple[int | None, int, int | None]]:
    """(position of its first step, global batch, steps) of each piece that the run reaches."""
    pieces = plan.schedule.pieces
    is_adaptive = any(start is None for start, _ in pieces)
    position = 0
    for index, (_, size) in enumerate(pieces):
        if is_adaptive:
            yield (None if index else 0), size, None
            continue
        end = pieces[index + 1][0] if index + 1 < len(pieces) else None
        end = plan.total_examples if end is None else min(end, plan.total_examples)
        steps = max(0, -(-(end - position) // size))
        if steps:
            yield position, size, steps
        position += steps * size


def _rates(plan: RunPlan, settings: Optimizer, start: int | None, size: int, steps: int | None) -> str:
    def rate(examples: int) -> str:
        hyperparameters = plan.scaling.hyperparameters(
            settings,
            examples=tf.constant(examples, tf.int64),
            global_batch=tf.constant(size),
            growth=tf.constant(size / plan.scaling.first_batch, tf.float64),
            plateau_factor=tf.constant(1.0, tf.float64),
        )
        return f"{float(hyperparameters.learning_rate):.3g}"

    first, last = rate(start or 0), rate((start or 0) + ((steps or 1) - 1) * size)
    return first if first == last else f"{first} to {last}"
