"""The memory of a training step by formula: variables, gradients, activations.

Variables are counted. Tensors are those of the traced graph of the step, each from the operation that makes
it to the last one that takes it (`engine.graphs.tensor_memory`). Nothing runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import keras
import tensorflow as tf

from engine.batching.memory_model import MemoryModel
from engine.diagnosis.step_trace import StepTrace
from engine.graphs.tensor_memory import TensorBytes, peak_bytes
from engine.inner_loop.train_state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateMemory:
    """Bytes of the variables of a run.

    Attributes:
      parameters: weights of the networks in training, moving statistics and frozen layers included.
      frozen_networks: weights of the networks that losses use and that never change.
      optimizers: what the optimizers keep for each parameter.
      averages: moving averages of networks.
      others: everything else, such as image pools.
    """

    parameters: int
    frozen_networks: int
    optimizers: int
    averages: int
    others: int

    @property
    def total(self) -> int:
        """Of all variables."""
        return sum(dataclasses.astuple(self))

    @classmethod
    def of(cls, state: TrainState) -> StateMemory:
        """Counts the variables of a run."""
        parameters, frozen, averages = (
            sum(_bytes(weight.value for weight in network.weights) for network in networks.values())
            for networks in (state.networks, state.frozen_networks, state.averaged)
        )
        optimizers = sum(_bytes(optimizer.variables.values()) for optimizer in state.optimizers.values())
        return cls(
            parameters=parameters,
            frozen_networks=frozen,
            optimizers=optimizers,
            averages=averages,
            others=state.size_bytes - parameters - averages - optimizers,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a step of one micro-batch needs on one device.

    Attributes:
      micro_batch: examples on the device.
      state: of the variables.
      gradients: bytes of the gradients of the phase that has most of them; part of `tensors.others`.
      tensors: at the peak of the step.
    """

    micro_batch: int
    state: StateMemory
    gradients: int
    tensors: TensorBytes

    @property
    def total(self) -> int:
        """Variables and tensors, in bytes."""
        return self.state.total + self.tensors.total


def whole_step_memory(trace: StepTrace, *, micro_batch: int) -> StepMemory:
    """Estimates the memory of a step of one micro-batch.

    Args:
      trace: of the step.
      micro_batch: examples on the device.
    """
    return StepMemory(
        micro_batch=micro_batch,
        state=StateMemory.of(trace.state),
        gradients=_gradient_bytes(trace),
        tensors=peak_bytes(trace.whole, batch=micro_batch),
    )


def accumulated_step_memory(trace: StepTrace, *, most: int) -> MemoryModel:
    """Estimates the memory of a step of several micro-batches, variables included.

    Args:
      trace: of the step.
      most: the largest micro-batch that is of interest.
    """
    state = StateMemory.of(trace.state).total
    # The peak is convex in the batch, so the line through both ends is nowhere below it.
    sizes = sorted({1, max(most, 2)})
    return MemoryModel.fit(
        [(size, state + peak_bytes(trace.accumulated, batch=size).total) for size in sizes]
    )


def _gradient_bytes(trace: StepTrace) -> int:
    networks = trace.state.networks
    return max(
        sum(_bytes(_values(networks[name])) for name in phase.updates)
        for phase in trace.experiment.task.phases()
    )


def _values(network: keras.Model) -> Iterable[tf.Variable]:
    return (variable.value for variable in network.trainable_variables)


def _bytes(variables: Iterable[tf.Variable]) -> int:
    return sum(variable.dtype.size * math.prod(variable.shape) for variable in variables)
