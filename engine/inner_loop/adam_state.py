"""Adam with one fused kernel per variable, and AMSGrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.batching.scaling_rules import Hyperparameters
from engine.inner_loop.optimizer_state import OptimizerState, VariableRates
from engine.optimizers import Adam


class AdamState(OptimizerState):
    """The moments of an Adam optimizer.

    Args:
      settings: where epsilon is added, and what is kept.
      networks: the networks it updates, by name.
      rates: see `OptimizerState`.
    """

    settings: Adam

    def __init__(
        self,
        settings: Adam,
        networks: Mapping[str, keras.Model],
        rates: Mapping[str, Sequence[VariableRates]] | None = None,
    ) -> None:
        super().__init__(settings, networks, rates)
        # The bias corrections need the products of all betas so far; these are not powers of beta, because
        # betas follow the batch. Each network has its own, because phases that share an optimizer may differ
        # in `every`.
        self._powers = {
            name: {
                f"beta{i}_power": tf.Variable(1.0, dtype=tf.float64, name=f"beta{i}_power") for i in (1, 2)
            }
            for name in networks
        }

    def _slot_names(self) -> tuple[str, ...]:
        return ("m", "v", "largest_v") if self.settings.amsgrad else ("m", "v")

    def _counters(self, network: str) -> Mapping[str, tf.Variable]:
        return self._powers[network]

    def _start_step(self, network: str, hyper: Hyperparameters) -> tuple[tf.Tensor, tf.Tensor]:
        variables = self._powers[network].values()
        powers = [
            power.read_value() * beta
            for power, beta in zip(variables, (hyper.beta1, hyper.beta2), strict=True)
        ]
        for variable, power in zip(variables, powers, strict=True):
            variable.assign(power)
        return powers[0], powers[1]

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: Mapping[str, tf.Variable],
        hyper: Hyperparameters,
        shared: Any,
    ) -> None:
        beta1_power, beta2_power = shared
        # The kernel divides by sqrt(v) + epsilon, uncorrected, as Keras does. PyTorch adds epsilon after
        # the bias correction: the same as epsilon * sqrt(1 - beta2_power) before it.
        epsilon = hyper.epsilon
        if self.settings.epsilon_mode == "pytorch":
            epsilon *= tf.sqrt(1.0 - beta2_power)
        if self.settings.amsgrad:
            rate = hyper.learning_rate * tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
            _update_amsgrad(variable, gradient, slots, hyper, rate=rate, epsilon=epsilon)
            return
        scalars = {
            "beta1_power": beta1_power,
            "beta2_power": beta2_power,
            "lr": hyper.learning_rate,
            "beta1": hyper.beta1,
            "beta2": hyper.beta2,
            "epsilon": epsilon,
        }
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots["m"].handle,
            v=slots["v"].handle,
            grad=gradient,
            **{name: tf.cast(value, gradient.dtype) for name, value in scalars.items()},
        )


def _update_amsgrad(
    variable: tf.Variable,
    gradient: tf.Tensor,
    slots: Mapping[str, tf.Variable],
    hyper: Hyperparameters,
    *,
    rate: tf.Tensor,
    epsilon: tf.Tensor,
) -> None:
    """Updates a variable by AMSGrad. XLA, and so a TPU, lacks TensorFlow's kernel for it."""
    dtype = gradient.dtype
    m, v = (slots[name].read_value() for name in ("m", "v"))
    m += tf.cast(1.0 - hyper.beta1, dtype) * (gradient - m)
    v += tf.cast(1.0 - hyper.beta2, dtype) * (tf.square(gradient) - v)
    largest_v = tf.maximum(slots["largest_v"].read_value(), v)
    for name, value in (("m", m), ("v", v), ("largest_v", largest_v)):
        slots[name].assign(value)
    variable.assign_sub(tf.cast(rate, dtype) * m / (tf.sqrt(largest_v) + tf.cast(epsilon, dtype)))
