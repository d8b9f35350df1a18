"""Everything that training changes, built in one place and named for checkpoints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.batching.noise_scale import NoiseScale
from engine.errors import ConfigurationError
from engine.inner_loop.fused_adam import FusedAdam
from engine.inner_loop.loss_scale import LossScale, is_needed
from engine.task import InitialWeights, Phase, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Networks, moments, the task's own variables and how far training has come.

    Args:
      networks: the networks in training, by name.
      averaged: exponential moving averages of those networks that a phase averages, by name.
      optimizers: by name.
      task_state: the task's own variables, by name.
      noise_scales: of each phase, by its name; empty where they are not measured.
      loss_scales: of each phase, by its name, where networks compute in float16; else empty.
      decisions: float64 scalars that the course of training decides, by name; see
      `engine.outer_loop.schedule_state`.
      step: int64, steps done.
      examples: int64, examples drawn.
      best: float64, the best evaluation so far; NaN before the first.
    """

    networks: Mapping[str, keras.Model]
    averaged: Mapping[str, keras.Model]
    optimizers: Mapping[str, FusedAdam]
    task_state: Mapping[str, tf.Variable]
    noise_scales: Mapping[str, NoiseScale]
    loss_scales: Mapping[str, LossScale]
    decisions: Mapping[str, tf.Variable]
    step: tf.Variable
    examples: tf.Variable
    best: tf.Variable

    @property
    def evaluation_networks(self) -> dict[str, keras.Model]:
        """The networks to use outside training: the averages where there are any."""
        return {**self.networks, **self.averaged}

    def variables(self) -> dict[str, tf.Variable]:
        """All variables by a name that does not depend on the process or on the devices."""
        named = {"step": self.step, "examples": self.examples, "best": self.best}
        for kind, networks in (("network", self.networks), ("averaged", self.averaged)):
            for name, network in networks.items():
                for index, weight in enumerate(network.weights):
                    named[f"{kind}/{name}/{index:03d}_{weight.name}"] = weight.value
        for name, optimizer in self.optimizers.items():
            for key, variable in optimizer.variables.items():
                named[f"optimizer/{name}/{key}"] = variable
        for kind, scales in (("noise_scale", self.noise_scales), ("loss_scale", self.loss_scales)):
            for name, scale in scales.items():
                for key, variable in scale.variables.items():
                    named[f"{kind}/{name}/{key}"] = variable
        for kind, variables in (("task", self.task_state), ("decision", self.decisions)):
            for name, variable in variables.items():
                named[f"{kind}/{name}"] = variable
        return named

    @property
    def size_bytes(self) -> int:
        """Of all variables together."""
        return sum(v.dtype.size * math.prod(v.shape) for v in self.variables().values())


def build_state(
    task: Task,
    example: Mapping[str, tf.TensorSpec],
    *,
    strategy: tf.distribute.Strategy,
    seed: int,
    initial_weights: InitialWeights | None,
    decisions: Mapping[str, float],
    noise_settings: Mapping | None,
) -> TrainState:
    """Builds every variable under the strategy's scope; the initial weights follow from `seed`.

    Args:
      example: shapes of one example, [H, W, C] each.
      initial_weights: sets weights after that; None leaves those of `seed`.
      decisions: their initial values.
      noise_settings: arguments of each phase's `NoiseScale`; None measures none.

    Raises:
      ConfigurationError: the phases table names something the task does not have, or the initial weights
        do not fit.
    """
    phases = task.phases()
    with strategy.scope():
        keras.utils.set_random_seed(seed)
        networks = dict(task.networks(example))
        _check_phases(phases, networks, task.optimizers)
        averaged_names = {name for phase in phases if phase.ema_decay for name in phase.updates}
        averaged = {}
        if averaged_names:
            keras.utils.set_random_seed(seed)  # the averages start from the same weights
            averaged = {
                name: network for name, network in task.networks(example).items() if name in averaged_names
            }
        if initial_weights is not None:
            initial_weights(networks)
            for name, average in averaged.items():
                average.set_weights(networks[name].get_weights())
        optimizers = {
            name: FusedAdam(
                settings,
                {
                    network: networks[network]
                    for phase in phases
                    if phase.optimizer == name
                    for network in phase.updates
                },
            )
            for name, settings in task.optimizers.items()
        }
        return TrainState(
            networks=networks,
            averaged=averaged,
            optimizers=optimizers,
            task_state=dict(task.state(example)),
            noise_scales={
                phase.name: NoiseScale(
                    {name: networks[name].trainable_variables for name in phase.updates}, **noise_settings
                )
                for phase in (phases if noise_settings is not None else ())
            },
            loss_scales={phase.name: LossScale() for phase in (phases if is_needed() else ())},
            decisions={
                name: tf.Variable(value, dtype=tf.float64, trainable=False, name="decision")
                for name, value in decisions.items()
            },
            step=tf.Variable(0, dtype=tf.int64, trainable=False, name="step"),
            examples=tf.Variable(0, dtype=tf.int64, trainable=False, name="examples"),
            best=tf.Variable(float("nan"), dtype=tf.float64, trainable=False, name="best"),
        )


def _check_phases(phases: tuple[Phase, ...], networks: Mapping, optimizers: Mapping) -> None:
    for phase in phases:
        for name in phase.updates:
            if name not in networks:
                raise ConfigurationError(
                    f"phase {phase.name!r} updates {name!r}, which is no network of the task; it has "
                    f"{', '.join(networks)}"
                )
        if phase.optimizer not in optimizers:
            raise ConfigurationError(
                f"phase {phase.name!r} uses the optimizer {phase.optimizer!r}, which the task does not "
                f"have; it has {', '.join(optimizers)}"
            )
        if phase.every < 1:
            raise ConfigurationError(f"phase {phase.name!r}: every = {phase.every}; at least 1")
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"phases {names}: at least one, each with a name of its own")


def trainable_parameters(network: keras.Model) -> int:
    """Numbers that training changes; moving statistics do not count."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)
