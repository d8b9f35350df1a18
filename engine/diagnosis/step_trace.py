"""One step of an experiment, traced and not run."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow as tf

from engine.distribution.devices import Devices, devices_of
from engine.distribution.precision import set_precision
from engine.experiment import Experiment
from engine.inner_loop.train_loop import TrainLoop
from engine.inner_loop.train_state import TrainState, build_state
from engine.outer_loop.run_plan import RunPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTrace:
    """The variables of a run and the graphs of its step, which are traced when they are asked for.

    Attributes:
      experiment: the settings.
      plan: the same, resolved.
      devices: one device of any kind.
      state: every variable.
    """

    experiment: Experiment
    plan: RunPlan
    devices: Devices
    state: TrainState

    @functools.cached_property
    def whole(self) -> tf.Graph:
        """The graph of a step of one micro-batch in which every phase is due, for an unknown batch."""
        return self.loop.step_graph(self.experiment.data.example_spec, accumulates=False)

    @functools.cached_property
    def accumulated(self) -> tf.Graph:
        """Likewise of a step of several micro-batches; the unknown size is that of a micro-batch."""
        return self.loop.step_graph(self.experiment.data.example_spec, accumulates=True)

    @functools.cached_property
    def loop(self) -> TrainLoop:
        """Traces and runs the step."""
        experiment = self.experiment
        return TrainLoop(
            task=experiment.task,
            devices=self.devices,
            train_state=self.state,
            scaling=self.plan.scaling,
            seed=experiment.seed,
            undo_non_finite=experiment.on_non_finite == "skip",
            label_roles=getattr(experiment.data, "label_roles", ()),
            recompute=experiment.recompute,
        )

    def with_recompute(self, recompute: bool) -> StepTrace:
        """The same variables in a step with or without recomputation."""
        if recompute == self.experiment.recompute:
            return self
        return dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, recompute=recompute))


def trace_step(experiment: Experiment, plan: RunPlan) -> StepTrace:
    """Builds an experiment on one CPU device, whatever the devices of the run.

    The precision of the process is that of the experiment afterwards.

    Args:
      experiment: the settings.
      plan: the same, resolved.

    Raises:
      ConfigurationError: the settings cannot work.
    """
    set_precision(experiment.precision)
    devices = devices_of(tf.distribute.OneDeviceStrategy("CPU:0"))
    state = build_state(
        experiment.task,
        experiment.data.example_spec,
        strategy=devices.strategy,
        seed=experiment.seed,
        initial_weights=None,
        outer_loop_state={},
        noise_settings=plan.noise_settings,
        parameter_groups=experiment.parameter_groups,
    )
    return StepTrace(experiment=experiment, plan=plan, devices=devices, state=state)
