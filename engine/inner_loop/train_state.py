"""All variables that training changes, with their names in checkpoints."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from engine.batching.noise_scale import NoiseScale
from engine.errors import ConfigurationError
from engine.inner_loop.loss_scale import LossScale, is_needed
from engine.inner_loop.optimizer_state import OptimizerState
from engine.inner_loop.optimizers import make_optimizer
from engine.inner_loop.variable_groups import VariableGroups, find_groups
from engine.optimizers import Optimizer
from engine.parameter_groups import ParameterGroup
from engine.task import InitialWeights, Phase, Task


class _HasVariables(Protocol):
    @property
    def variables(self) -> dict[str, tf.Variable]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Networks, moments, the task's own variables and the position of the run.

    Attributes:
      networks: the networks in training, by name.
      averaged: exponential moving averages, by name of the network, if its phase keeps one.
      frozen_networks: the networks of `Task.frozen_networks`, by name; not in checkpoints.
      groups: of their variables.
      optimizers: by name.
      task_state: the task's own variables, by name.
      noise_scales: by phase; empty if they are not measured.
      loss_scales: by phase; empty unless networks compute in float16.
      outer_loop_state: float64 scalars by name: the state of the schedules and of the policy for values that
        are not finite; see `engine.outer_loop.schedule_state` and `engine.outer_loop.nan_policy`.
      step: int64, steps done.
      examples: int64, examples drawn.
      best: float64, the best evaluation so far; NaN before the first.
    """

    networks: Mapping[str, keras.Model]
    averaged: Mapping[str, keras.Model]
    frozen_networks: Mapping[str, keras.Model]
    groups: VariableGroups
    optimizers: Mapping[str, OptimizerState]
    task_state: Mapping[str, tf.Variable]
    noise_scales: Mapping[str, NoiseScale]
    loss_scales: Mapping[str, LossScale]
    outer_loop_state: Mapping[str, tf.Variable]
    step: tf.Variable
    examples: tf.Variable
    best: tf.Variable

    @property
    def evaluation_networks(self) -> dict[str, keras.Model]:
        """The networks to use outside training: moving averages instead of networks that have one."""
        return {**self.networks, **self.averaged}

    def variables(self) -> dict[str, tf.Variable]:
        """All variables by name. Names do not depend on the process or the devices."""
        named = {"step": self.step, "examples": self.examples, "best": self.best}
        for kind, networks in (("network", self.networks), ("averaged", self.averaged)):
            named |= {
                f"{kind}/{name}/{index:03d}_{weight.name}": weight.value
                for name, network in networks.items()
                for index, weight in enumerate(network.weights)
            }
        holders: tuple[tuple[str, Mapping[str, _HasVariables]], ...] = (
            ("optimizer", self.optimizers),
            ("noise_scale", self.noise_scales),
            ("loss_scale", self.loss_scales),
        )
        for kind, by_name in holders:
            named |= {
                f"{kind}/{name}/{key}": variable
                for name, holder in by_name.items()
                for key, variable in holder.variables.items()
            }
        for kind, variables in (("task", self.task_state), ("decision", self.outer_loop_state)):
            named |= {f"{kind}/{name}": variable for name, variable in variables.items()}
        return named

    @property
    def size_bytes(self) -> int:
        """Size of all variables together."""
        return sum(v.dtype.size * math.prod(v.shape) for v in self.variables().values())


def build_state(
    task: Task,
    example: Mapping[str, tf.TensorSpec],
    *,
    strategy: tf.distribute.Strategy,
    seed: int,
    initial_weights: InitialWeights | None,
    outer_loop_state: Mapping[str, float],
    noise_settings: Mapping[str, Any] | None,
    parameter_groups: Sequence[ParameterGroup] = (),
) -> TrainState:
    """Builds every variable under the strategy's scope.

    Args:
      task: makes the networks and their state.
      example: shapes of one example, [H, W, C] each.
      strategy: the variables are mirrored on its replicas.
      seed: of the initial weights.
      initial_weights: then replaces weights; None keeps those of `seed`.
      outer_loop_state: initial values.
      noise_settings: arguments of each phase's `NoiseScale`; None does not measure noise scales.
      parameter_groups: of the variables.

    Raises:
      ConfigurationError: a phase names something that the task does not have, or the initial weights or a
        group do not fit.
    """
    phases = task.phases()
    with strategy.scope():
        keras.utils.set_random_seed(seed)
        frozen_networks = dict(task.frozen_networks(example))
        networks = dict(task.networks(example))
        _check_phases(phases, networks, task.optimizers)
        if initial_weights is not None:
            initial_weights(networks)
        averaged = _build_averages(task, example, phases, networks)
        groups = find_groups(parameter_groups, networks)
        groups.freeze(networks)
        groups.freeze(averaged)
        _check_frozen(phases, networks)
        return TrainState(
            networks=networks,
            averaged=averaged,
            frozen_networks=frozen_networks,
            groups=groups,
            optimizers=_build_optimizers(task, phases, networks, groups),
            task_state=dict(task.state(example)),
            noise_scales=_build_noise_scales(phases, networks, noise_settings),
            loss_scales={phase.name: LossScale() for phase in (phases if is_needed() else ())},
            outer_loop_state={
                name: tf.Variable(value, dtype=tf.float64, trainable=False, name="decision")
                for name, value in outer_loop_state.items()
            },
            step=tf.Variable(0, dtype=tf.int64, trainable=False, name="step"),
            examples=tf.Variable(0, dtype=tf.int64, trainable=False, name="examples"),
            best=tf.Variable(float("nan"), dtype=tf.float64, trainable=False, name="best"),
        )


def _build_averages(
    task: Task,
    example: Mapping[str, tf.TensorSpec],
    phases: tuple[Phase, ...],
    networks: Mapping[str, keras.Model],
) -> dict[str, keras.Model]:
    """Builds a copy of each network that a phase averages."""
    names = {name for phase in phases if phase.ema_decay for name in phase.updates}
    if not names:
        return {}
    # Keras draws the seeds of initialisers from Python's generator. Averages must not change what
    # `Task.state` draws after them.
    generator_state = random.getstate()
    averaged = {name: network for name, network in task.networks(example).items() if name in names}
    random.setstate(generator_state)
    for name, average in averaged.items():
        average.set_weights(networks[name].get_weights())
    return averaged


def _build_optimizers(
    task: Task, phases: tuple[Phase, ...], networks: Mapping[str, keras.Model], groups: VariableGroups
) -> dict[str, OptimizerState]:
    optimizers = {}
    for optimizer, settings in task.optimizers.items():
        updated = {
            name: networks[name] for phase in phases if phase.optimizer == optimizer for name in phase.updates
        }
        optimizers[optimizer] = make_optimizer(settings, updated, groups.rates(settings, updated))
    return optimizers


def _build_noise_scales(
    phases: tuple[Phase, ...], networks: Mapping[str, keras.Model], settings: Mapping[str, Any] | None
) -> dict[str, NoiseScale]:
    if settings is None:
        return {}
    return {
        phase.name: NoiseScale(
            {name: networks[name].trainable_variables for name in phase.updates}, **settings
        )
        for phase in phases
    }


def _check_phases(
    phases: tuple[Phase, ...], networks: Mapping[str, keras.Model], optimizers: Mapping[str, Optimizer]
) -> None:
    for phase in phases:
        for name in phase.updates:
            if name not in networks:
                raise ConfigurationError(
                    f"phase {phase.name!r} updates {name!r}, but the task has no such network; use one of "
                    f"{', '.join(networks)}"
                )
        if phase.optimizer not in optimizers:
            raise ConfigurationError(
                f"phase {phase.name!r} uses the optimizer {phase.optimizer!r}, which the task does not "
                f"have; use one of {', '.join(optimizers)}"
            )
        if phase.every < 1:
            raise ConfigurationError(
                f"phase {phase.name!r}: every = {phase.every}: must be at least 1; raise it"
            )
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"phases {names}: a task needs at least one; give each its own name")


def _check_frozen(phases: tuple[Phase, ...], networks: Mapping[str, keras.Model]) -> None:
    for phase in phases:
        for name in phase.updates:
            if not networks[name].trainable_variables:
                raise ConfigurationError(
                    f"parameter_groups: all of the network {name!r} is frozen, but the phase {phase.name!r} "
                    "updates it; leave some of it trainable"
                )


def trainable_parameters(network: keras.Model) -> int:
    """Number of trainable parameters; moving statistics do not count."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)
