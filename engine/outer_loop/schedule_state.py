"""What the course of a run decides: its batch, and the learning rates that follow a metric.

All of it is a handful of float64 variables in the run's checkpoints, so that a run goes on from where
it was interrupted as if it had not been: the state of the batch schedule, the last change of the batch
(a warm-up counts from it), and the state of each learning-rate schedule that follows a metric.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine.batch_schedules import BatchSchedule
from engine.batching.noise_scale import NoiseScale
from engine.batching.scaling_rules import BatchScaling, WarmupState
from engine.task import Adam, MetricSchedule


def initial_schedule_state(schedule: BatchSchedule, optimizers: Mapping[str, Adam]) -> dict[str, float]:
    """Every decision by name, at the start of a run."""
    values = {"batch/size": float(schedule.sizes[0]), "batch/growth_before": 1.0, "batch/changed_at": 0.0}
    values |= {f"schedule/{name}": value for name, value in schedule.initial_state().items()}
    for optimizer, metric_schedule in _metric_schedules(optimizers).items():
        values |= {f"rate/{optimizer}/{name}": v for name, v in metric_schedule.initial().items()}
    return values


class ScheduleState:
    """Reads and makes the decisions; nothing is kept outside the variables.

    Args:
      schedule, scaling: of the run.
      optimizers: settings by name.
      variables: float64 scalars by the names of `initial_schedule_state`.
    """

    def __init__(
        self,
        *,
        schedule: BatchSchedule,
        scaling: BatchScaling,
        optimizers: Mapping[str, Adam],
        variables: Mapping[str, tf.Variable],
    ):
        self._schedule = schedule
        self._scaling = scaling
        self._metric_schedules = _metric_schedules(optimizers)
        self._variables = variables

    @property
    def decide_every_examples(self) -> int | None:
        """How often the schedule looks at noise scales; None or 0 if never."""
        return self._schedule.decide_every_examples

    def global_batch(self, examples: int) -> int:
        """The batch of the step that starts at `examples`; notes a change of it."""
        size = self._schedule.batch(examples, self._read("schedule/"))
        before = self._read("batch/")
        if size != before["size"]:
            reached = self._scaling.growth(
                examples=examples,
                global_batch=before["size"],
                warmup=self.warmup(),
            )
            self._write("batch/", {"size": size, "growth_before": float(reached), "changed_at": examples})
        return size

    def warmup(self) -> WarmupState:
        """The last change of the batch, from which learning rates warm up."""
        batch = self._read("batch/")
        return WarmupState(batch["growth_before"], int(batch["changed_at"]))

    def plateau_factors(self) -> dict[str, float]:
        """Factors on the learning rates that follow a metric, by optimizer."""
        return {name: self._read(f"rate/{name}/")["factor"] for name in self._metric_schedules}

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Lets everything that follows a metric decide."""
        state = self._read("schedule/")
        self._write("schedule/", self._schedule.after_evaluation(state, metrics))
        for name, metric_schedule in self._metric_schedules.items():
            prefix = f"rate/{name}/"
            self._write(prefix, metric_schedule.observe(self._read(prefix), metrics))

    def after_noise_scale(self, noise_scales: Mapping[str, NoiseScale]) -> None:
        """Lets the batch schedule decide on the noise scales measured so far."""
        values = {phase: noise_scale.value() for phase, noise_scale in noise_scales.items()}
        state = self._read("schedule/")
        self._write("schedule/", self._schedule.after_noise_scale(state, values))

    def _read(self, prefix: str) -> dict[str, float]:
        return {
            name.removeprefix(prefix): float(variable.numpy())
            for name, variable in self._variables.items()
            if name.startswith(prefix)
        }

    def _write(self, prefix: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._variables[prefix + name].assign(value)


def _metric_schedules(optimizers: Mapping[str, Adam]) -> dict[str, MetricSchedule]:
    return {
        name: settings.schedule
        for name, settings in optimizers.items()
        if isinstance(settings.schedule, MetricSchedule)
    }
