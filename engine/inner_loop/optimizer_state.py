"""The variables of an optimizer, and its updates, with every hyper-parameter a tensor.

Keras's own optimizers do not fit this loop. Under tf.distribute they reduce gradients a second time, clip
before reducing, and cannot be called inside a condition, which a step that may be skipped needs. And they run
about ten unfused operations per variable.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from engine.batching.scaling_rules import Hyperparameters
from engine.optimizers import Optimizer


class VariableRates(NamedTuple):
    """How the hyper-parameters of one variable differ from those of its optimizer.

    Attributes:
      learning_rate_factor: on the optimizer's learning rate.
      weight_decay: in place of the optimizer's; None keeps that.
    """

    learning_rate_factor: float = 1.0
    weight_decay: float | None = None


class OptimizerState(abc.ABC):
    """The variables of one optimizer, for every network it updates.

    Create it under the strategy's scope. Call `apply` in replica context, with gradients that are the same on
    every replica.

    Args:
      settings: of the optimizer; `apply` gets the numbers.
      networks: the networks it updates, by name.
      rates: of each trainable variable, by network; networks that are missing have the optimizer's own.
    """

    couples_weight_decay: ClassVar[bool] = False
    """Whether weight decay is added to the gradient, as that of an L2 penalty, or shrinks the weights."""

    def __init__(
        self,
        settings: Optimizer,
        networks: Mapping[str, keras.Model],
        rates: Mapping[str, Sequence[VariableRates]] | None = None,
    ) -> None:
        self.settings = settings
        self._slots = {
            name: [
                {slot: _zeros_like(variable, slot) for slot in self._slot_names()}
                for variable in network.trainable_variables
            ]
            for name, network in networks.items()
        }
        own = VariableRates()
        self._rates = {
            name: list((rates or {}).get(name, [own] * len(slots))) for name, slots in self._slots.items()
        }

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint needs, by a stable name."""
        named: dict[str, tf.Variable] = {}
        for network, slots in self._slots.items():
            named |= {f"{network}/{name}": variable for name, variable in self._counters(network).items()}
            for index, own in enumerate(slots):
                named |= {f"{network}/{index:03d}/{name}": variable for name, variable in own.items()}
        return named

    def apply(
        self,
        name: str,
        variables: Sequence[keras.Variable],
        gradients: Sequence[tf.Tensor],
        hyperparameters: Hyperparameters,
    ) -> None:
        """Updates the trainable variables of network `name` in place (in replica context).

        Args:
          name: of the network.
          variables: its trainable variables.
          gradients: in the same order.
          hyperparameters: scalars; they may differ from step to step.
        """
        shared = self._start_step(name, hyperparameters)
        rows = zip(variables, gradients, self._slots[name], self._rates[name], strict=True)
        for variable, gradient, slots, rates in rows:
            own = hyperparameters
            if rates.learning_rate_factor != 1.0:
                own = own._replace(learning_rate=own.learning_rate * rates.learning_rate_factor)
            if rates.weight_decay is not None:
                own = own._replace(weight_decay=rates.weight_decay * own.weight_decay_scale)
            has_decay = self.settings.weight_decay if rates.weight_decay is None else rates.weight_decay
            if has_decay:
                gradient = self._decay(variable.value, gradient, own)
            self._update(variable.value, gradient, slots, own, shared)

    def _decay(self, variable: tf.Variable, gradient: tf.Tensor, hyper: Hyperparameters) -> tf.Tensor:
        """Applies the weight decay; returns the gradient for the update."""
        value = variable.read_value()
        if self.couples_weight_decay:
            return gradient + tf.cast(hyper.weight_decay, gradient.dtype) * value
        variable.assign_sub(tf.cast(hyper.learning_rate * hyper.weight_decay, gradient.dtype) * value)
        return gradient

    @abc.abstractmethod
    def _slot_names(self) -> tuple[str, ...]:
        """Names of what is kept for each variable, of its shape, starting from 0."""

    def _counters(self, network: str) -> Mapping[str, tf.Variable]:
        """What is kept for each network."""
        del network
        return {}

    def _start_step(self, network: str, hyper: Hyperparameters) -> object:
        """What the updates of all variables of a network share; None if nothing."""
        del network, hyper
        return None

    @abc.abstractmethod
    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: Mapping[str, tf.Variable],
        hyper: Hyperparameters,
        shared: object,
    ) -> None:
        """Updates one variable and its slots in place."""


def _zeros_like(variable: keras.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)
