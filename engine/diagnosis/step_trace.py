"""One step of an experiment, built and traced on a CPU, whatever the devices of the run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import tensorflow as tf

from engine.distribution.devices import devices_of
from engine.distribution.precision import set_precision
from engine.experiment import Experiment
from engine.inner_loop.train_loop import TrainLoop
from engine.inner_loop.train_state import TrainState, build_state
from engine.outer_loop.run_plan import RunPlan
from engine.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTrace:
    """The variables of a run and the graphs of its step.

    Attributes:
      task: of the experiment.
      example: shapes of the features of one example.
      state: every variable.
      loop: traces the step; it has the variables.
    """

    task: Task
    example: Mapping[str, tf.TensorSpec]
    state: TrainState
    loop: TrainLoop

    @functools.cached_property
    def whole(self) -> tf.Graph:
        """The graph of a step of one micro-batch in which every phase is due, for an unknown batch."""
        return self.loop.step_graph(self.example, accumulates=False)

    @functools.cached_property
    def accumulated(self) -> tf.Graph:
        """Likewise of a step of several micro-batches; the unknown size is that of a micro-batch."""
        return self.loop.step_graph(self.example, accumulates=True)


def trace_step(experiment: Experiment, plan: RunPlan) -> StepTrace:
    """Builds an experiment on one CPU device, with the experiment's precision. Graphs are traced when asked for.

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
    loop = TrainLoop(
        task=experiment.task,
        devices=devices,
        train_state=state,
        scaling=plan.scaling,
        seed=experiment.seed,
        undo_non_finite=experiment.on_non_finite == "skip",
        label_roles=getattr(experiment.data, "label_roles", ()),
    )
    return StepTrace(task=experiment.task, example=experiment.data.example_spec, state=state, loop=loop)
