"""What a run will do on so many replicas, known before anything is built: batches and scaling rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from engine.batch_schedules import BatchSchedule, resolve_batch_schedule
from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.task import MetricSchedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The settings of an experiment, resolved.

    Args:
      total_examples: the run ends with the first step that reaches it.
      schedule: the global batch of every step.
      largest_micro_batch: examples a replica computes on at once, at most; None for any number.
      batches: the layout of every global batch that the schedule can take.
      scaling: what the global batch does to the hyper-parameters.
      noise_settings: arguments of each phase's `NoiseScale`; None if nothing asks for it.
    """

    total_examples: int
    schedule: BatchSchedule
    largest_micro_batch: int | None
    batches: Mapping[int, BatchLayout]
    scaling: BatchScaling
    noise_settings: Mapping | None


def plan_run(
    experiment: Experiment,
    *,
    replicas: int,
    largest_micro_batch: int | str | None,
    static_shapes: bool,
) -> RunPlan:
    """Resolves and checks everything that needs no device.

    Args:
      largest_micro_batch: the experiment's, or the smallest of several workers'.

    Raises:
      ConfigurationError: names the setting, and quotes the entry of the batch schedule, that cannot work.
    """
    total = experiment.examples("total_examples")
    if total < 1:
        raise ConfigurationError("TOTAL_EXAMPLES = 0: nothing to train; give at least 1 example")
    if largest_micro_batch == "auto":
        raise ConfigurationError(
            "LARGEST_MICRO_BATCH = 'auto': not measured yet; train with engine.train, which measures it, or "
            "give a number"
        )
    optimizers = experiment.task.optimizers
    schedule = _schedule(experiment)
    batches = {
        size: BatchLayout(
            global_batch=size,
            replicas=replicas,
            largest_micro_batch=largest_micro_batch,
            static_shapes=static_shapes,
        )
        for size in schedule.sizes
    }
    scaling = BatchScaling(
        examples_per_epoch=experiment.data.train_examples,
        first_batch=schedule.sizes[0],
        rule=experiment.learning_rate_rule,
        warmup_examples=experiment.examples("warmup_after_growth"),
        scale_weight_decay=experiment.scale_weight_decay,
        scale_ema_decay=experiment.scale_ema_decay,
    )
    scaling.check(optimizers, {size: schedule.entry(size) for size in schedule.sizes})
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
    )


def _schedule(experiment: Experiment) -> BatchSchedule:
    evaluate_every = experiment.examples("evaluate_every")
    schedule = resolve_batch_schedule(
        experiment.batch_schedule, examples_per_epoch=experiment.data.train_examples
    )
    phases = [phase.name for phase in experiment.task.phases()]
    schedule.check(phases=phases, evaluate_every=evaluate_every)
    for name, optimizer in experiment.task.optimizers.items():
        if isinstance(optimizer.schedule, MetricSchedule) and not evaluate_every:
            raise ConfigurationError(
                f"the learning rate of {name!r} follows {type(optimizer.schedule).__name__}, and "
                "EVALUATE_EVERY = 0 makes no evaluations before the end; set EVALUATE_EVERY, such as '1ep'"
            )
    return schedule
