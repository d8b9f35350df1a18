"""Supervised translation: a generator that learns from targets alone, without a discriminator."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import Phase, Step, Task
from models.fidelity import Fidelity
from models.losses import l1
from models.networks import generators
from models.side_information import SideInformation


class Supervised(Task):
    """One network and one phase, which minimises distances between outputs and targets.

    Args:
      generator: name of the generator network, such as "unet_256"; see `models.networks.generators`.
      generator_filters: channels of its first layer; the other layers scale with it.
      norm: "batch" (over the global batch of all replicas), "instance" or "none".
      dropout: whether the generator has dropout.
      inference_norm: what batch norm uses outside training: "batch_statistics" (of each single image) or
        "moving_statistics".
      side_information: additional inputs of the generator; none by default.
      l1_weight: weight of the L1 distance between output and target, in the colour space of the data.
      fidelity: other distances between output and target; none by default.
      ema_decay: decay per step of an exponential moving average of the generator, which evaluation and
        translation then use; None keeps no average.
      generator_optimizer: settings of the generator's optimizer.

    Raises:
      ConfigurationError: a setting is out of its range, or both settings of the L1 weight are above 0.
    """

    def __init__(
        self,
        *,
        generator: str = "unet_256",
        generator_filters: int = 64,
        norm: str = "batch",
        dropout: bool = False,
        inference_norm: str = "batch_statistics",
        side_information: SideInformation = SideInformation(),  # noqa: B008, frozen
        l1_weight: float = 1.0,
        fidelity: Fidelity = Fidelity(),  # noqa: B008, frozen
        ema_decay: float | None = None,
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
        name = type(self).__name__
        check_at_least(1, of=name, generator_filters=generator_filters)
        check_at_least(0, of=name, l1_weight=l1_weight)
        if l1_weight and fidelity.l1:
            raise ConfigurationError(
                f"{name}.l1_weight = {l1_weight} and Fidelity.l1 = {fidelity.l1}: both weigh L1; leave one "
                "of them at 0"
            )
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ConfigurationError(
                f"{name}.ema_decay = {ema_decay}: must lie in (0, 1), such as 0.999; None keeps no average"
            )
        self.generator = generator
        self.generator_filters = generator_filters
        self.norm = norm
        self.dropout = dropout
        self.inference_norm = inference_norm
        self.side_information = side_information
        self.side_inputs = side_information.names
        self.l1_weight = l1_weight
        self.fidelity = fidelity
        self.ema_decay = ema_decay
        self.optimizers = {"generator": generator_optimizer}

    @property
    def colour_spaces(self) -> tuple[str, ...] | None:  # type: ignore[override]  # in Task, an attribute to set
        """RGB if a distance is defined only there; else any."""
        return ("rgb",) if self.fidelity.takes_rgb else None

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds `generator`."""
        if not (self.l1_weight or self.fidelity.weights):
            raise ConfigurationError(
                "Supervised: l1_weight and all weights of Fidelity are 0, so there is nothing to learn; set "
                "one of them"
            )
        return {"generator": self.build_generator(example)}

    def frozen_networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds the networks of `fidelity`."""
        return self.fidelity.frozen_networks(example["target"])

    def check_translation(self, example: Mapping[str, tf.TensorSpec]) -> None:
        """Checks that the generator takes such examples."""
        self.build_generator(example)

    def build_generator(self, example: Mapping[str, tf.TensorSpec]) -> keras.Model:
        """Builds the generator.

        Args:
          example: shapes of the features of one example: images [H, W, C].

        Raises:
          ConfigurationError: the generator cannot take that size, or the data has no such side information.
        """
        height, width, channels = example["input"].shape
        generators.check_image_size(self.generator, height, width)
        return generators.build_generator(
            self.generator,
            name="generator",
            input_channels=channels,
            output_channels=example["target"].shape[-1],
            filters=self.generator_filters,
            norm=self.norm,
            dropout=self.dropout,
            inference_norm=self.inference_norm,
            side=self.side_information.shapes(example),
        )

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the generator's."""
        return (
            Phase(
                name="generator",
                loss=self.generator_loss,
                updates=("generator",),
                optimizer="generator",
                ema_decay=self.ema_decay,
            ),
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Translates the batch: "fake", [B, H, W, C]."""
        inputs = self.side_information.network_inputs(step.batch["input"], step.batch)
        return {"fake": step.networks["generator"](inputs, training=True)}

    def generator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """What the generator minimises, by name, each [B]."""
        return self.reconstruction_loss(step)

    def reconstruction_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The weighted distances between outputs and targets, by name, each [B]."""
        real, fake = step.batch["target"], step.outputs["fake"]
        terms = self.fidelity.terms(fake, real, step.frozen_networks)
        return {"l1": self.l1_weight * l1(fake, real), **terms} if self.l1_weight else terms

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The generator's outputs, clipped to [-1, 1]."""
        inputs = self.side_information.network_inputs(batch["input"], batch)
        # Generators without a tanh can leave the range.
        return tf.clip_by_value(networks["generator"](inputs, training=False), -1.0, 1.0)
