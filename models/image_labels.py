"""What classification and regression have in common: one network, which predicts labels of images."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, NoReturn

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.optimizers import Adam, Optimizer
from engine.task import Phase, Step, Task
from models.label_network import LabelNetwork


class ImageLabels(Task):
    """One network and one phase: images, and maybe vectors, to labels [B, K].

    Args:
      network: settings of the network.
      ema_decay: decay per step of an exponential moving average of the network, which evaluation then uses;
        None keeps no average.
      optimizer: settings of the optimizer.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    name: ClassVar[str]
    """Of the network, the phase and the optimizer."""

    def __init__(
        self,
        *,
        network: LabelNetwork = LabelNetwork(),  # noqa: B008, frozen
        ema_decay: float | None = None,
        optimizer: Optimizer = Adam(beta1=0.9),  # noqa: B008, frozen
    ) -> None:
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ConfigurationError(
                f"{type(self).__name__}.ema_decay = {ema_decay}: must lie in (0, 1), such as 0.999; None "
                "keeps no average"
            )
        self.network = network
        self.side_inputs = network.side_inputs
        self.ema_decay = ema_decay
        self.optimizers = {self.name: optimizer}

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds the network, under the name of the task."""
        outputs = example["target"].shape[0]
        return {self.name: self.network.build(example, outputs=outputs, name=self.name, last=self._last)}

    def _last(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Layers after the head."""
        return x

    def set_initial_weights(
        self, networks: Mapping[str, keras.Model], *, target_statistics: tuple | None
    ) -> None:
        """Takes over the weights of a trained backbone, if the settings name some."""
        del target_statistics
        self.network.load_weights(networks[self.name])

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the network's."""
        return (
            Phase(
                name=self.name,
                loss=self.loss,
                updates=(self.name,),
                optimizer=self.name,
                ema_decay=self.ema_decay,
            ),
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Predicts the labels of the batch: "prediction", [B, K]."""
        inputs = self.network.inputs(step.batch)
        return {"prediction": step.networks[self.name](inputs, training=True)}

    @abc.abstractmethod
    def loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The distance between predictions and targets by its name, [B]."""

    def predict(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The outputs of the network, [B, K]."""
        return networks[self.name](self.network.inputs(batch), training=False)

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> NoReturn:
        """Raises ConfigurationError: there is no image to make."""
        raise ConfigurationError(f"{type(self).__name__}: predicts labels and makes no images")

    def preview(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """The inputs."""
        return {"input": self.input_picture(batch)}
