"""SGD, RMSprop and Lion: optimizers without a bias correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import tensorflow as tf

from engine.batching.scaling_rules import Hyperparameters
from engine.inner_loop.optimizer_state import OptimizerState
from engine.optimizers import Lion, RmsProp, Sgd


class SgdState(OptimizerState):
    """The velocities of `Sgd`; one fused kernel per variable."""

    settings: Sgd
    couples_weight_decay: ClassVar[bool] = True

    def _slot_names(self) -> tuple[str, ...]:
        return ("velocity",) if self.settings.momentum else ()

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: Mapping[str, tf.Variable],
        hyper: Hyperparameters,
        shared: object,
    ) -> None:
        rate = tf.cast(hyper.learning_rate, gradient.dtype)
        if not self.settings.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots["velocity"].handle,
            lr=rate,
            grad=gradient,
            momentum=tf.cast(hyper.beta1, gradient.dtype),
            use_nesterov=self.settings.nesterov,
        )


class RmsPropState(OptimizerState):
    """The mean squares and velocities of `RmsProp`."""

    settings: RmsProp
    couples_weight_decay: ClassVar[bool] = True

    def _slot_names(self) -> tuple[str, ...]:
        has_velocity = self.settings.momentum or self.settings.epsilon_mode == "keras"
        return ("mean_square", "velocity") if has_velocity else ("mean_square",)

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: Mapping[str, tf.Variable],
        hyper: Hyperparameters,
        shared: object,
    ) -> None:
        scalars = (hyper.learning_rate, hyper.beta2, hyper.beta1, hyper.epsilon)
        rate, rho, momentum, epsilon = (tf.cast(value, gradient.dtype) for value in scalars)
        if self.settings.epsilon_mode == "keras":
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=slots["mean_square"].handle,
                mom=slots["velocity"].handle,
                lr=rate,
                rho=rho,
                momentum=momentum,
                epsilon=epsilon,
                grad=gradient,
            )
            return
        mean_square = rho * slots["mean_square"].read_value() + (1.0 - rho) * tf.square(gradient)
        slots["mean_square"].assign(mean_square)
        update = gradient / (tf.sqrt(mean_square) + epsilon)
        if "velocity" in slots:
            update += momentum * slots["velocity"].read_value()
            slots["velocity"].assign(update)
        variable.assign_sub(rate * update)


class LionState(OptimizerState):
    """The momenta of `Lion`."""

    settings: Lion

    def _slot_names(self) -> tuple[str, ...]:
        return ("m",)

    def _update(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: Mapping[str, tf.Variable],
        hyper: Hyperparameters,
        shared: object,
    ) -> None:
        scalars = (hyper.learning_rate, hyper.beta1, hyper.beta2)
        rate, beta1, beta2 = (tf.cast(value, gradient.dtype) for value in scalars)
        m = slots["m"].read_value()
        variable.assign_sub(rate * tf.sign(beta1 * m + (1.0 - beta1) * gradient))
        slots["m"].assign(beta2 * m + (1.0 - beta2) * gradient)
