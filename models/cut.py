"""CUT and FastCUT: unpaired translation in one direction only (Park et al., arXiv 2007.15651)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import Phase, Step, Task
from models.discriminators.domain_discriminator import DomainDiscriminator
from models.initialisation import initialise
from models.networks.generators import build_generator, check_image_size
from models.patch_nce import PatchNce
from models.regularisation import Regularisation


class Cut(Task):
    """A generator from inputs to targets, and a discriminator of targets.

    PatchNCE keeps an output similar to its input: from the features of the generator's first layers and a
    projector, each patch of the output should identify the input's patch at the same position. A step updates
    the discriminator first, then generator and projector together. The networks are `generator`,
    `discriminator` and `projector`. As published, the initial kernels are drawn by "xavier" with a gain of
    0.02.

    Args:
      generator, generator_filters, discriminator_filters, norm, dropout, inference_norm, gan_loss,
        regularisation: see `models.pix2pix.Pix2Pix`.
      nce: settings of PatchNCE.
      nce_weight: weight of PatchNCE: 1 in CUT, 10 in FastCUT.
      nce_identity: whether half of that weight is for targets and the generator's outputs for them; only in
        CUT.
      flip_equivariance: whether half of the examples are mirrored before the generator, and the features of
        its outputs mirrored back; only in FastCUT.
      ema_decay: decay per step of a moving average of generator and projector for evaluation; None keeps
        none.
      generator_optimizer: settings of the optimizer of generator and projector.
      discriminator_optimizer: settings of the discriminator's optimizer.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    def __init__(
        self,
        *,
        generator: str = "resnet_9blocks",
        generator_filters: int = 64,
        discriminator_filters: int = 64,
        norm: str = "instance",
        dropout: bool = False,
        inference_norm: str = "batch_statistics",
        gan_loss: str = "lsgan",
        regularisation: Regularisation = Regularisation(),  # noqa: B008, frozen
        nce: PatchNce = PatchNce(),  # noqa: B008, frozen
        nce_weight: float = 1.0,
        nce_identity: bool = True,
        flip_equivariance: bool = False,
        ema_decay: float | None = None,
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
        check_at_least(
            1, of="Cut", generator_filters=generator_filters, discriminator_filters=discriminator_filters
        )
        check_at_least(0, of="Cut", nce_weight=nce_weight)
        self.generator = generator
        self.norm = norm
        self._build_generator = functools.partial(
            build_generator,
            generator,
            norm=norm,
            filters=generator_filters,
            dropout=dropout,
            inference_norm=inference_norm,
        )
        self.regularisation = regularisation
        self.discriminator = DomainDiscriminator(
            network="discriminator",
            filters=discriminator_filters,
            norm=norm,
            gan_loss=gan_loss,
            regularisation=regularisation,
        )
        self.nce = nce
        self.nce_weight = nce_weight
        self.nce_identity = nce_identity
        self.flip_equivariance = flip_equivariance
        self.ema_decay = ema_decay
        self.optimizers = {
            "generator": generator_optimizer,
            "discriminator": regularisation.optimizer(discriminator_optimizer),
        }

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds `generator`, `discriminator` and `projector`."""
        height, width, channels = example["input"].shape
        if example["target"].shape[-1] != channels:
            raise ConfigurationError(
                f"Cut: encodes inputs and outputs with the same layers, but inputs have {channels} channels "
                f"and targets {example['target'].shape[-1]}; prepare both alike, or train CycleGan"
            )
        check_image_size(self.generator, height, width)
        generator = self._build_generator(name="generator", input_channels=channels, output_channels=channels)
        networks = {
            "generator": generator,
            "discriminator": self.discriminator.build(example["target"].shape),
            "projector": self.nce.projector(generator),
        }
        for network in networks.values():
            initialise(network, scheme="xavier")
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """The discriminator's phases, then that of generator and projector."""
        updates, optimizer = ("discriminator",), "discriminator"
        return (
            Phase(name="discriminator", loss=self.discriminator_loss, updates=updates, optimizer=optimizer),
            *self.regularisation.phases(self.r1_loss, updates=updates, optimizer=optimizer),
            Phase(
                name="generator",
                loss=self.generator_loss,
                updates=("generator", "projector"),
                optimizer="generator",
                ema_decay=self.ema_decay,
            ),
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Computes the generator's outputs: "fake" for inputs, "identity" for targets; [B, H, W, C]."""
        sources = {"fake": step.batch["input"]}
        if self.nce_identity:
            sources["identity"] = step.batch["target"]
        # Together, as published: batch norm then has moments of both.
        images = tf.concat([self._mirror(step, x) for x in sources.values()], axis=0)  # [B or 2 B, H, W, C]
        outputs = step.networks["generator"](images, training=True)
        return dict(zip(sources, tf.split(outputs, len(sources)), strict=True))

    def discriminator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The discriminator's terms, each [B]."""
        return self.discriminator.discriminator_terms(
            step, real=step.batch["target"], fake=step.outputs["fake"]
        )

    def r1_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """R1, [B]."""
        return {"penalty": self.discriminator.r1_penalty(step, real=step.batch["target"])}

    def generator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The adversarial term and PatchNCE, each [B]."""
        gan = self.discriminator.generator_loss(step, real=step.batch["target"], fake=step.outputs["fake"])
        if not self.nce_identity:
            return {"gan": gan, "nce": self.nce_weight * self._nce(step, "input", "fake")}
        half = 0.5 * self.nce_weight
        return {
            "gan": gan,
            "nce": half * self._nce(step, "input", "fake"),
            "nce_identity": half * self._nce(step, "target", "identity"),
        }

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The generator's outputs."""
        return networks["generator"](batch["input"], training=False)

    def _nce(self, step: Step, source: str, output: str) -> tf.Tensor:
        """PatchNCE between a feature of the batch and an output of `forward`, [B]."""
        return self.nce(
            step.networks["generator"],
            step.networks["projector"],
            step.batch[source],
            step.outputs[output],
            seeds=step.seeds,
            name=source,
            align=lambda x: self._mirror(step, x),
        )

    def _mirror(self, step: Step, x: tf.Tensor) -> tf.Tensor:
        """Mirrors this step's random half of the examples [B, H, W, C]; a second call undoes it."""
        if not self.flip_equivariance:
            return x
        is_mirrored = step.seeds.uniform("mirror", (1, 1, 1)) < 0.5  # [B, 1, 1, 1]
        return tf.where(is_mirrored, tf.reverse(x, axis=[2]), x)
