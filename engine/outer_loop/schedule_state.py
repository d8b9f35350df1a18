"""The state of the batch schedule and of the learning rates that follow a metric.

It consists of a few float64 variables: the state of the batch schedule, the last change of the batch (where a
warm-up starts), and the state of each learning-rate schedule that follows a metric. Checkpoints hold them, so
a resumed run makes the same decisions as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from engine.batch_schedules import BatchSchedule
from engine.batching.noise_scale import NoiseScale
from engine.batching.scaling_rules import BatchScaling, WarmupState
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.optimizers import MetricSchedule, Optimizer


def initial_schedule_state(schedule: BatchSchedule, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
    """Initial values of all variables, by name."""
    values = {"batch/size": float(schedule.sizes[0]), "batch/growth_before": 1.0, "batch/changed_at": 0.0}
    if schedule.replicas is not None:
        values["batch/replicas"] = float(schedule.replicas)
    values |= {f"schedule/{name}": value for name, value in schedule.initial_state().items()}
    for optimizer, metric_schedule in _metric_schedules(optimizers).items():
        values |= {f"rate/{optimizer}/{name}": v for name, v in metric_schedule.initial().items()}
    return values


class ScheduleState:
    """Gives the global batch and the factors on the learning rates, and updates the schedules.

    All its state is in the variables, which checkpoints hold.

    Args:
      schedule: the batch schedule.
      scaling: how the hyper-parameters follow the global batch.
      optimizers: settings by name.
      variables: float64 scalars by name; among them those of `initial_schedule_state`.
    """

    def __init__(
        self,
        *,
        schedule: BatchSchedule,
        scaling: BatchScaling,
        optimizers: Mapping[str, Optimizer],
        variables: Mapping[str, tf.Variable],
    ):
        self._schedule = schedule
        self._scaling = scaling
        self._metric_schedules = _metric_schedules(optimizers)
        self._variables = variables

    def check_replicas(self, experiment: Experiment) -> None:
        """Checks that a run whose batch is "per replica" continues on as many replicas as it began on.

        Args:
          experiment: of the schedule.

        Raises:
          ConfigurationError: it does not, so its batch would change.
        """
        now = self._schedule.replicas
        if now is None or (earlier := int(self._read("batch/")["replicas"])) == now:
            return
        schedule = experiment.batch_schedule_on(earlier)
        starts = [f"{start}:{batch}" for start, batch in schedule.pieces]
        kept = str(schedule.sizes[0]) if len(starts) == 1 else f'"{", ".join(starts)}"'
        raise ConfigurationError(
            f"BATCH_SCHEDULE = {experiment.batch_schedule!r}: the run began on {earlier} replicas; on {now} "
            "its global batch, and so what it learns, would be another; use as many, or keep the batch on "
            f"any number of them with BATCH_SCHEDULE = {kept} and --allow_config_change"
        )

    @property
    def decide_every_examples(self) -> int:
        """How often the batch schedule reads the noise scales; 0 is never."""
        return self._schedule.decide_every_examples

    def global_batch(self, examples: int) -> int:
        """The global batch of the step that starts at `examples`. Records a change of the batch."""
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
        """The last change of the batch, where the warm-up of the learning rates starts."""
        batch = self._read("batch/")
        return WarmupState(batch["growth_before"], int(batch["changed_at"]))

    def plateau_factors(self) -> dict[str, float]:
        """Factors on the learning rates that follow a metric, by optimizer."""
        return {name: self._read(f"rate/{name}/")["factor"] for name in self._metric_schedules}

    def after_evaluation(self, metrics: Mapping[str, float]) -> list[str]:
        """Updates every schedule that follows a metric, with the metrics of an evaluation, by name.

        Returns:
          A line for each learning rate that changes.
        """
        before = self.plateau_factors()
        state = self._read("schedule/")
        self._write("schedule/", self._schedule.after_evaluation(state, metrics))
        for name, metric_schedule in self._metric_schedules.items():
            prefix = f"rate/{name}/"
            self._write(prefix, metric_schedule.observe(self._read(prefix), metrics))
        return [
            f"the learning rate of optimizer {name} changes by its schedule: factor {before[name]:.3g} to "
            f"{factor:.3g}"
            for name, factor in self.plateau_factors().items()
            if factor != before[name]
        ]

    def after_noise_scale(self, noise_scales: Mapping[str, NoiseScale]) -> None:
        """Updates the batch schedule with the noise scales measured so far, by phase."""
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


def _metric_schedules(optimizers: Mapping[str, Optimizer]) -> dict[str, MetricSchedule]:
    return {
        name: settings.schedule
        for name, settings in optimizers.items()
        if isinstance(settings.schedule, MetricSchedule)
    }
