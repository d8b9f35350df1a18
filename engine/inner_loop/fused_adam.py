"""Adam with one fused kernel per variable and every hyper-parameter a tensor.

Keras's own optimizers do not fit this loop. Under tf.distribute they reduce gradients a second time, clip
before reducing, and cannot be called inside a condition, which a step that may be skipped needs. And they run
about ten unfused operations per variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.batching.scaling_rules import Hyperparameters
from engine.task import Adam


class FusedAdam:
    """The moments of one optimizer, for every network it updates.

    Create it under the strategy's scope. Call `apply` in replica context, with gradients that are the same on
    every replica.

    Args:
      settings: where epsilon is added, and whether weights decay; `apply` gets the numbers.
      networks: the networks it updates, by name.
    """

    def __init__(self, settings: Adam, networks: Mapping[str, keras.Model]) -> None:
        self.settings = settings
        self._moments = {
            name: [
                (_zeros_like(variable, "m"), _zeros_like(variable, "v"))
                for variable in network.trainable_variables
            ]
            for name, network in networks.items()
        }
        # The bias corrections need the products of all betas so far; these are not powers of beta, because
        # betas follow the batch. Each network has its own, because phases that share an optimizer may differ
        # in `every`.
        self._powers = {
            name: tuple(tf.Variable(1.0, dtype=tf.float64, name=f"beta{i}_power") for i in (1, 2))
            for name in networks
        }

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint needs, by a stable name."""
        named = {}
        for network, moments in self._moments.items():
            named[f"{network}/beta1_power"], named[f"{network}/beta2_power"] = self._powers[network]
            for index, (m, v) in enumerate(moments):
                named[f"{network}/{index:03d}/m"] = m
                named[f"{network}/{index:03d}/v"] = v
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
          hyperparameters: scalars; the betas may differ from step to step.
        """
        learning_rate, beta1, beta2, epsilon, weight_decay = hyperparameters
        powers = [
            power.read_value() * beta for power, beta in zip(self._powers[name], (beta1, beta2), strict=True)
        ]
        for variable, power in zip(self._powers[name], powers, strict=True):
            variable.assign(power)
        beta1_power, beta2_power = powers
        # The kernel divides by sqrt(v) + epsilon, uncorrected, as Keras does. PyTorch adds epsilon after
        # the bias correction: the same as epsilon * sqrt(1 - beta2_power) before it.
        if self.settings.epsilon_mode == "pytorch":
            epsilon *= tf.sqrt(1.0 - beta2_power)
        for variable, gradient, (m, v) in zip(variables, gradients, self._moments[name], strict=True):
            dtype = gradient.dtype
            if self.settings.weight_decay:
                decay = tf.cast(learning_rate * weight_decay, dtype)
                variable.value.assign_sub(decay * variable.value.read_value())
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=tf.cast(beta1_power, dtype),
                beta2_power=tf.cast(beta2_power, dtype),
                lr=tf.cast(learning_rate, dtype),
                beta1=tf.cast(beta1, dtype),
                beta2=tf.cast(beta2, dtype),
                epsilon=tf.cast(epsilon, dtype),
                grad=gradient,
            )


def _zeros_like(variable: keras.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)
