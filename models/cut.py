"""CUT and FastCUT: unpaired translation without a way back (Park et al., arXiv 2007.15651)."""

from __future__ import annotations

import functools

import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.task import Adam, Phase, Step, Task
from models.discriminators.domain_discriminator import DomainDiscriminator
from models.initialisation import initialise
from models.networks.generators import build_generator, check_image_size
from models.patch_nce import PatchNce
from models.regularisation import Regularisation


class Cut(Task):
    """A generator from inputs to targets, and a discriminator of targets.

    What keeps an output like its input is PatchNCE: by the generator's own first layers and a projector of
    theirs, each patch of the output is to find the input's patch at its place. The discriminator is updated
    first, then the generator and the projector together. The networks are `generator`, `discriminator` and
    `projector`; as published, their initial kernels are Xavier's with a gain of 0.02.

    Args:
      generator, generator_filters, discriminator_filters, norm, dropout, inference_norm, gan_loss,
        regularisation: as of `models.pix2pix.Pix2Pix`.
      nce: settings of PatchNCE.
      nce_weight: its weight: 1 in CUT, 10 in FastCUT.
      nce_identity: gives half of that weight to targets and what the generator makes of them; only CUT.
      flip_equivariance: half of the examples are mirrored before the generator, and the features of what
        it makes of them mirrored back; only FastCUT.
      ema_decay: keeps a moving average of generator and projector for evaluation; None keeps none.
      generator_optimizer, discriminator_optimizer: settings; the first has the projector, too.
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
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        filters = {"generator_filters": generator_filters, "discriminator_filters": discriminator_filters}
        check_at_least(1, of="Cut", **filters)
        check_at_least(0, of="Cut", nce_weight=nce_weight)
        self.generator = generator
        self.norm = norm
        settings = {"filters": generator_filters, "dropout": dropout, "inference_norm": inference_norm}
        self._build_generator = functools.partial(build_generator, generator, norm=norm, **settings)
        self.regularisation = regularisation
        judging = {"filters": discriminator_filters, "norm": norm}
        judging |= {"gan_loss": gan_loss, "regularisation": regularisation}
        self.judge = DomainDiscriminator(network="discriminator", **judging)
        self.nce = nce
        self.nce_weight = nce_weight
        self.nce_identity = nce_identity
        self.flip_equivariance = flip_equivariance
        self.ema_decay = ema_decay
        discriminator = regularisation.optimizer(discriminator_optimizer)
        self.optimizers = {"generator": generator_optimizer, "discriminator": discriminator}

    def networks(self, example):
        height, width, channels = example["input"].shape
        if example["target"].shape[-1] != channels:
            raise ConfigurationError(
                f"CUT encodes inputs and outputs alike, but inputs have {channels} channels and targets "
                f"{example['target'].shape[-1]}; prepare both alike, or train CycleGan"
            )
        check_image_size(self.generator, height, width)
        sizes = {"input_channels": channels, "output_channels": channels}
        generator = self._build_generator(name="generator", **sizes)
        discriminator = self.judge.build(example["target"].shape)
        projector = self.nce.projector(generator)
        networks = {"generator": generator, "discriminator": discriminator, "projector": projector}
        for network in networks.values():
            initialise(network, scheme="xavier")
        return networks

    def phases(self):
        made = {"updates": ("generator", "projector"), "optimizer": "generator", "ema_decay": self.ema_decay}
        judge = {"updates": ("discriminator",), "optimizer": "discriminator"}
        return (
            Phase(name="discriminator", loss=self.discriminator_loss, **judge),
            *self.regularisation.phases(self.r1_loss, **judge),
            Phase(name="generator", loss=self.generator_loss, **made),
        )

    def forward(self, step: Step):
        sources = {"fake": step.batch["input"]}
        if self.nce_identity:
            sources["kept"] = step.batch["target"]
        # Together, as published, so that batch norm takes its moments over both.
        pictures = tf.concat([self._mirror(step, x) for x in sources.values()], axis=0)  # [B or 2 B, ...]
        made = step.networks["generator"](pictures, training=True)
        return dict(zip(sources, tf.split(made, len(sources)), strict=True))

    def discriminator_loss(self, step: Step):
        return self.judge.discriminator_terms(step, real=step.batch["target"], fake=step.outputs["fake"])

    def r1_loss(self, step: Step):
        return {"penalty": self.judge.r1_penalty(step, real=step.batch["target"])}

    def generator_loss(self, step: Step):
        gan = self.judge.generator_loss(step, real=step.batch["target"], fake=step.outputs["fake"])
        if not self.nce_identity:
            return {"gan": gan, "nce": self.nce_weight * self._nce(step, "input", "fake")}
        half = 0.5 * self.nce_weight
        return {
            "gan": gan,
            "nce": half * self._nce(step, "input", "fake"),
            "nce_identity": half * self._nce(step, "target", "kept"),
        }

    def translate(self, networks, batch):
        return networks["generator"](batch["input"], training=False)

    def _nce(self, step: Step, source: str, made: str) -> tf.Tensor:
        networks, pictures = step.networks, (step.batch[source], step.outputs[made])
        settings = {"seeds": step.seeds, "name": source, "align": lambda x: self._mirror(step, x)}
        return self.nce(networks["generator"], networks["projector"], *pictures, **settings)

    def _mirror(self, step: Step, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], of which the examples drawn in this step are mirrored; twice is not at all."""
        if not self.flip_equivariance:
            return x
        drawn = step.seeds.uniform("mirror", (1, 1, 1)) < 0.5  # [B, 1, 1, 1]
        return tf.where(drawn, tf.reverse(x, axis=[2]), x)
