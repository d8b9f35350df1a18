"""Adam with one fused kernel a variable and every hyper-parameter a tensor.

Keras's own optimizers reduce gradients a second time under tf.distribute, run about ten unfused
operations a variable, and cannot skip a step inside a compiled loop; see WORKSPACE.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.task import Adam


class FusedAdam:
    """The moments and step counts of one optimizer, for every network it updates.

    Create it under the strategy's scope; call `apply` in replica context with gradients that are the
    same on every replica.

    Args:
      settings: betas and epsilon.
      networks: the networks it updates, by name.
    """

    def __init__(self, settings: Adam, networks: Mapping[str, keras.Model]):
        self.settings = settings
        self._moments = {
            name: [
                (_zeros_like(variable, "m"), _zeros_like(variable, "v"))
                for variable in network.trainable_variables
            ]
            for name, network in networks.items()
        }
        # One count a network, since phases with different `every` may share an optimizer.
        self._counts = {name: tf.Variable(0, dtype=tf.int64, name="count") for name in networks}

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint needs, by a stable name."""
        named = {}
        for network, moments in self._moments.items():
            named[f"{network}/count"] = self._counts[network]
            for index, (m, v) in enumerate(moments):
                named[f"{network}/{index:03d}/m"] = m
                named[f"{network}/{index:03d}/v"] = v
        return named

    def apply(
        self,
        name: str,
        variables: Sequence[keras.Variable],
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates the trainable variables of network `name` in place (in replica context).

        Args:
          variables, gradients: in the order of the network's trainable variables.
          learning_rate: scalar, schedule and batch-size rule included.
        """
        settings = self.settings
        count = self._counts[name]
        count.assign_add(1)
        steps = tf.cast(count.read_value(), tf.float64)
        beta1_power = tf.constant(settings.beta1, tf.float64) ** steps
        beta2_power = tf.constant(settings.beta2, tf.float64) ** steps
        # The kernel divides by sqrt(v) + epsilon, uncorrected, as Keras does. PyTorch adds epsilon after
        # the bias correction: the same as epsilon * sqrt(1 - beta2^t) before it.
        epsilon = tf.constant(settings.epsilon, tf.float64)
        if settings.epsilon_mode == "pytorch":
            epsilon *= tf.sqrt(1.0 - beta2_power)
        for variable, gradient, (m, v) in zip(variables, gradients, self._moments[name], strict=True):
            dtype = gradient.dtype
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=tf.cast(beta1_power, dtype),
                beta2_power=tf.cast(beta2_power, dtype),
                lr=tf.cast(learning_rate, dtype),
                beta1=tf.constant(settings.beta1, dtype),
                beta2=tf.constant(settings.beta2, dtype),
                epsilon=tf.cast(epsilon, dtype),
                grad=gradient,
            )


def _zeros_like(variable: keras.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)
