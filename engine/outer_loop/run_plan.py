"""The batches and scaling rules of a run, resolved and checked before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.batch_schedules import BatchSchedule
from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling
from engine.early_stopping import StoppingRule
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.inner_loop.due_phases import warm_up_phases
from engine.optimizers import MetricSchedule
from engine.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The settings of an experiment, resolved.

    Attributes:
      total_examples: the run ends with the first step that reaches it.
      schedule: the global batch of every step.
      largest_micro_batch: largest micro-batch of a replica; None is unlimited.
      batches: the layout of each global batch that the schedule can take.
      scaling: how the hyper-parameters follow the global batch.
      noise_settings: arguments of each phase's `NoiseScale`; None if noise scales are not measured.
      best_metric: the evaluation metric that chooses the best checkpoint; None chooses none.
      stopping: when the run ends early; None: never.
      evaluate_every: examples between evaluations; 0: only at the end.
      adversarial_start: examples before the adversarial phases join; 0: they are there from the start.
    """

    total_examples: int
    schedule: BatchSchedule
    largest_micro_batch: int | None
    batches: Mapping[int, BatchLayout]
    scaling: BatchScaling
    noise_settings: Mapping[str, Any] | None
    best_metric: str | None
    stopping: StoppingRule | None
    evaluate_every: int
    adversarial_start: int


def plan_run(
    experiment: Experiment,
    *,
    replicas: int,
    largest_micro_batch: int | str | None,
    static_shapes: bool,
) -> RunPlan:
    """Resolves and checks the settings, as far as no device is needed.

    Args:
      experiment: the settings.
      replicas: number of replicas.
      largest_micro_batch: the experiment's setting, or the smallest one of several workers.
      static_shapes: whether every batch must have one shape.

    Raises:
      ConfigurationError: a setting cannot work.
    """
    total = experiment.examples("total_examples")
    if total < 1:
        raise ConfigurationError("TOTAL_EXAMPLES = 0: there is nothing to train on; set at least 1 example")
    if isinstance(largest_micro_batch, str):
        raise ConfigurationError(
            f"LARGEST_MICRO_BATCH = {largest_micro_batch!r}: not measured yet; train with engine.train, "
            "which measures it, or give a number"
        )
    schedule = experiment.batch_schedule_on(replicas)
    _check_schedules(experiment, schedule)
    batches = {
        size: BatchLayout(
            global_batch=size,
            replicas=replicas,
            largest_micro_batch=largest_micro_batch,
            static_shapes=static_shapes,
            is_only=len(schedule.sizes) == 1,
        )
        for size in schedule.sizes
    }
    scaling = _scaling(experiment, schedule)
    noise_settings = None
    if experiment.measure_noise_scale or schedule.decide_every_examples:
        noise_settings = {
            "smoothing": experiment.noise_scale_smoothing,
            "combine_steps": any(
                b.global_batch == 1 or b.replicas * b.accumulation == 1 for b in batches.values()
            ),
        }
    return RunPlan(
        total_examples=total,
        schedule=schedule,
        largest_micro_batch=largest_micro_batch,
        batches=batches,
        scaling=scaling,
        noise_settings=noise_settings,
        best_metric=experiment.chosen_metric,
        stopping=experiment.stopping_rule,
        evaluate_every=experiment.examples("evaluate_every"),
        adversarial_start=_adversarial_start(experiment, total=total),
    )


def warm_up_lines(plan: RunPlan, task: Task) -> list[str]:
    """What learns before the adversarial start, as a line of the run's plan; none without a warm-up."""
    if not plan.adversarial_start:
        return []
    names = dict.fromkeys(name for phase in warm_up_phases(task.phases()) for name in phase.updates)
    return [
        f"Warm-up until example {plan.adversarial_start}: {' and '.join(names)} alone, from reconstruction "
        "losses (ADVERSARIAL_START)"
    ]


def _adversarial_start(experiment: Experiment, *, total: int) -> int:
    """`Experiment.adversarial_start` in examples; refused if the task has nothing to warm up with."""
    start = experiment.examples("adversarial_start")
    if not start:
        return 0
    setting = f"ADVERSARIAL_START = {experiment.adversarial_start!r}"
    if not warm_up_phases(experiment.task.phases()):
        raise ConfigurationError(
            f"{setting}: {type(experiment.task).__name__}, as it is set, has no generator that learns from a "
            "reconstruction loss before its discriminator; set ADVERSARIAL_START = 0"
        )
    if start >= total:
        raise ConfigurationError(
            f"{setting}: the discriminators would never join a run of {total} examples; lower it, or raise "
            "TOTAL_EXAMPLES"
        )
    return start


def _scaling(experiment: Experiment, schedule: BatchSchedule) -> BatchScaling:
    scaling = BatchScaling(
        examples_per_epoch=experiment.data.train_examples,
        first_batch=schedule.sizes[0],
        rule=experiment.learning_rate_rule,
        warmup_examples=experiment.examples("warmup_after_growth"),
        first_warmup_examples=experiment.examples("warmup"),
        scale_weight_decay=experiment.scale_weight_decay,
        scale_ema_decay=experiment.scale_ema_decay,
        total_examples=experiment.examples("total_examples"),
    )
    scaling.check(experiment.task.optimizers, {size: schedule.entry(size) for size in schedule.sizes})
    return scaling


def _check_schedules(experiment: Experiment, schedule: BatchSchedule) -> None:
    """Refuses schedules and early stopping, which need evaluations, if there are none."""
    evaluate_every = experiment.examples("evaluate_every")
    phases = [phase.name for phase in experiment.task.phases()]
    schedule.check(phases=phases, evaluate_every=evaluate_every)
    for name, optimizer in experiment.task.optimizers.items():
        if isinstance(optimizer.schedule, MetricSchedule) and not evaluate_every:
            raise ConfigurationError(
                f"the learning rate of {name!r} follows {type(optimizer.schedule).__name__}, and "
                "EVALUATE_EVERY = 0 makes no evaluations before the end; set EVALUATE_EVERY, such as '1ep'"
            )
    if experiment.early_stopping is not None and not evaluate_every:
        raise ConfigurationError(
            "EarlyStopping decides after evaluations, and EVALUATE_EVERY = 0 makes none before the end; set "
            "EVALUATE_EVERY, such as '1ep'"
        )
