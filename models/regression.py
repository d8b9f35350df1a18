"""Regression: numbers that belong to an image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data.roles import NUMBERS
from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import Step
from models.image_labels import ImageLabels
from models.label_network import LabelNetwork
from models.losses import huber, l1, l2
from models.networks.layers import at_least_float32, variable_dtype

LOSSES = ("mse", "mae", "huber")
_SCALE = "target_scale"


class Regression(ImageLabels):
    """Learns numbers; for data whose targets are numbers.

    Its outputs are in the units of the targets. The loss compares numbers that are standardised by the mean
    and the standard deviation of the training targets, so that its size, and what a learning rate does, does
    not depend on their units. These are part of the network, as the layer after its head.

    Args:
      network: settings of the network, "regressor".
      loss: "mse", "mae" or "huber"; of standardised numbers.
      huber_delta: the error from which Huber's loss is linear, in standard deviations of the target.
      standardise: False learns the numbers as they are.
      ema_decay: see `ImageLabels`.
      optimizer: see `ImageLabels`.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    name = "regressor"
    target_kind = NUMBERS

    def __init__(
        self,
        *,
        network: LabelNetwork = LabelNetwork(),  # noqa: B008, frozen
        loss: str = "mse",
        huber_delta: float = 1.0,
        standardise: bool = True,
        ema_decay: float | None = None,
        optimizer: Optimizer = Adam(beta1=0.9),  # noqa: B008, frozen
    ) -> None:
        super().__init__(network=network, ema_decay=ema_decay, optimizer=optimizer)
        if loss not in LOSSES:
            raise ConfigurationError(f"Regression.loss = {loss!r}: unknown; use one of {', '.join(LOSSES)}")
        check_at_least(0, of="Regression", huber_delta=huber_delta)
        if not huber_delta:
            raise ConfigurationError("Regression.huber_delta = 0: must be above 0; 1.0 is usual")
        self.loss_name = loss
        self.huber_delta = huber_delta
        self.standardise = standardise

    def _last(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return TargetScale(name=_SCALE, dtype=variable_dtype())(x)

    def set_initial_weights(
        self, networks: Mapping[str, keras.Model], *, target_statistics: tuple | None
    ) -> None:
        """Sets the scale of the outputs too.

        Args:
          networks: by name; changed in place.
          target_statistics: mean and standard deviation of the training targets, [K] each.
        """
        super().set_initial_weights(networks, target_statistics=target_statistics)
        if self.standardise and target_statistics is not None:
            mean, stddev = (np.asarray(values, np.float64) for values in target_statistics)
            networks[self.name].get_layer(_SCALE).set_weights([mean, np.where(stddev > 0, stddev, 1.0)])

    def loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The distance of standardised numbers, [B], under the name of the loss."""
        stddev = step.networks[self.name].get_layer(_SCALE).stddev
        predictions, targets = step.outputs["prediction"], step.batch["target"]
        # The difference comes first: numbers may be large beside their deviation.
        error = at_least_float32(predictions) - at_least_float32(targets)
        error = error / tf.cast(stddev, error.dtype)  # [B, K]
        losses: dict[str, Callable[..., tf.Tensor]] = {
            "mse": l2,
            "mae": l1,
            "huber": functools.partial(huber, delta=self.huber_delta),
        }
        return {self.loss_name: losses[self.loss_name](error, tf.zeros_like(error))}


@keras.saving.register_keras_serializable(package="gantry")
class TargetScale(keras.layers.Layer):
    """From standardised numbers to their own units: x [B, K] -> stddev * x + mean.

    Both are weights that no optimizer changes; initially 1 and 0.
    """

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Adds the weights."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.stddev = self.add_weight(shape=shape, initializer="ones", trainable=False, name="stddev")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, K] -> [B, K]."""
        return x * self.stddev + self.mean
