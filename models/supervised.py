"""Supervised translation: a generator that comes close to its targets, and nothing that judges it."""

from __future__ import annotations

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.task import Adam, Phase, Step, Task
from models.fidelity import Fidelity
from models.losses import l1
from models.networks.generators import build_generator, check_image_size
from models.side_information import SideInformation


class Supervised(Task):
    """One network, one phase: the distances of its outputs from the targets.

    Args:
      generator: name of the generator network, such as "unet_256"; see `models.networks.generators`.
      generator_filters: channels of its first layer; all others follow.
      norm: "batch" (over the global batch of all replicas), "instance" or "none".
      dropout: dropout in the generator.
      inference_norm: what batch norm uses outside training: "batch_statistics" of each single picture, or
        "moving_statistics".
      side_information: what the generator gets with each picture; nothing by default.
      l1_weight: weight of the L1 distance from the target, in the pictures' own values.
      fidelity: other distances from the target; none by default.
      ema_decay: keeps an exponential moving average of the generator, decaying by this factor a step, which
        is then what makes pictures; None keeps none.
      generator_optimizer: its settings.
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
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
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
        self._perceptual = None  # of the fidelity; its weights never change, so they are in no checkpoint

    @property
    def colour_spaces(self):
        return ("rgb",) if self.fidelity.takes_rgb else None

    def networks(self, example):
        if not (self.l1_weight or self.fidelity.weights):
            raise ConfigurationError(
                "Supervised: l1_weight and every weight of Fidelity are 0, so there is nothing to learn; "
                "set one of them"
            )
        self._perceptual = self.fidelity.build(example["target"])
        return {"generator": self.generator_of(example)}

    def check_translation(self, example):
        self.generator_of(example)

    def generator_of(self, example) -> keras.Model:
        """The generator for examples of these shapes; see `Task.networks` for what it raises."""
        height, width, channels = example["input"].shape
        check_image_size(self.generator, height, width)
        return build_generator(
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

    def phases(self):
        return (
            Phase(
                name="generator",
                loss=self.generator_loss,
                updates=("generator",),
                optimizer="generator",
                ema_decay=self.ema_decay,
            ),
        )

    def forward(self, step: Step):
        inputs = self.side_information.beside(step.batch["input"], step.batch)
        return {"fake": step.networks["generator"](inputs, training=True)}

    def generator_loss(self, step: Step):
        real, fake = step.batch["target"], step.outputs["fake"]
        terms = self.fidelity.terms(fake, real, perceptual=self._perceptual)
        return {"l1": self.l1_weight * l1(fake, real), **terms} if self.l1_weight else terms

    def translate(self, networks, batch):
        inputs = self.side_information.beside(batch["input"], batch)
        # Generators without a tanh reach beyond the range.
        return tf.clip_by_value(networks["generator"](inputs, training=False), -1.0, 1.0)
