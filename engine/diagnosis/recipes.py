"""The settings that train alike on more devices, by the run's batch-size rule."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling, Hyperparameters
from engine.diagnosis.text_columns import columns
from engine.errors import ConfigurationError
from engine.optimizers import Optimizer
from engine.outer_loop.run_plan import RunPlan
from engine.task import Task

DEVICES = (1, 4)

_WARMUP_EPOCHS = 5
"""Of a learning rate that grows with the batch: Goyal et al., arXiv 1706.02677, section 2.2."""


def recipe_lines(plan: RunPlan, task: Task) -> list[str]:
    """A table of the settings on 1 and on 4 devices, one row for each optimizer that differs.

    The batch of a device stays that of the plan's first batch.

    Args:
      plan: of the run.
      task: its optimizers.
    """
    first = plan.batches[plan.schedule.sizes[0]]
    rows = [["devices", "batch", "optimizer", "rate", "decays", "weight decay", "warm-up"]]
    for devices in DEVICES:
        batch = max(1, round(devices * first.global_batch / first.replicas))
        told: dict[tuple[str, ...], list[str]] = {}
        for name, settings in task.optimizers.items():
            cells = _cells(plan.scaling, settings, batch)
            told.setdefault(cells, []).append(name)
        warmup = _warmup(plan.scaling, batch)
        rows += [[str(devices), str(batch), " ".join(names), *cells, warmup] for cells, names in told.items()]
    rule = plan.scaling.rule
    lines = [
        f"Recipe for more devices, by LEARNING_RATE_RULE = {rule!r} (rate: learning rate without schedule):",
        *(f"  {line}" for line in columns(rows)),
    ]
    if rule == "none":
        lines.append('  "none" leaves everything as set; "linear" and "square_root" are the usual rules')
    return lines


def _cells(scaling: BatchScaling, settings: Optimizer, batch: int) -> tuple[str, ...]:
    try:
        scaling.check({"optimizer": settings}, {batch: str(batch)})
    except ConfigurationError:
        return ("no such rule", f"{settings.first_decay} below 0", "-")
    values = _hyperparameters(scaling, settings, batch)
    decays = dict(zip(("first_decay", "second_decay"), (values.beta1, values.beta2), strict=True))
    named = {getattr(settings, key): float(value) for key, value in decays.items() if getattr(settings, key)}
    return (
        f"{float(values.learning_rate):.4g}",
        ", ".join(f"{name} {value:.5g}" for name, value in named.items()) or "-",
        f"{float(values.weight_decay):.4g}",
    )


def _hyperparameters(scaling: BatchScaling, settings: Optimizer, batch: int) -> Hyperparameters:
    """At the start of a run, without its schedule and warm-up."""
    return dataclasses.replace(scaling, first_warmup_examples=0).hyperparameters(
        dataclasses.replace(settings, schedule=None),
        examples=tf.constant(0, tf.int64),
        global_batch=tf.constant(batch),
        growth=tf.constant(batch / scaling.first_batch, tf.float64),
        plateau_factor=tf.constant(1.0, tf.float64),
    )


def _warmup(scaling: BatchScaling, batch: int) -> str:
    if scaling.first_warmup_examples:
        return f"{scaling.first_warmup_examples}ex"
    grows = scaling.rule != "none" and batch > scaling.first_batch
    return f"{_WARMUP_EPOCHS}ep" if grows else "none"
