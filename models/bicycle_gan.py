"""BicycleGAN: many outputs for one input; a latent code selects one (Zhu et al., arXiv 1711.11586)."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import LATENT_CODE, Phase, Step, Task, Term
from models.initialisation import initialise
from models.latent_networks import LatentNetworks
from models.losses import kl_from_standard_normal, l1
from models.scaled_discriminators import ScaledDiscriminators

VARIANTS = {"bicycle_gan": ("encoded", "random"), "cvae_gan": ("encoded",), "clr_gan": ("random",)}
"""Variant -> kinds of codes of its fakes: "encoded" from the target, or "random" from N(0, 1)."""

_PREVIEWED_CODES = 4


class BicycleGan(Task):
    """A generator with a latent code as a second input, an encoder, and discriminators for each kind of code.

    cVAE-GAN reconstructs the target from its encoded code, whose distribution is kept near N(0, 1). cLR-GAN
    encodes the output for a random code, and the result should be that code. BicycleGAN is both. As in the
    authors' code:

    - Generator and encoder share an update, but the latent loss has a gradient for the generator only:
      otherwise they could hide the code in the image. In "clr_gan" it also trains the encoder, which has no
      other loss there.
    - The discriminators are updated next, each on fakes of its kind, computed before the first update.
    - Initial kernels are drawn by "xavier" with a gain of 0.02.

    A batch of the authors has two halves: they translate the first with both kinds of codes, and use only the
    targets of the second, as real images of cLR-GAN. Here each example takes part in everything.

    Args:
      variant: one of VARIANTS.
      latent_networks: settings of generator and encoder.
      discriminators: settings of the discriminators of each kind.
      l1_weight: weight of the L1 distance between the target and the output for its encoded code.
      kl_weight: weight of the KL divergence between encoded codes and N(0, 1), summed over the code.
      latent_weight: weight of the L1 distance between a random code and the mean that the encoder returns.
      ema_decay: decay per step of a moving average of generator and encoder for evaluation; None keeps none.
      generator_optimizer: settings of the optimizer of generator and encoder.
      discriminator_optimizer: settings of the discriminators' optimizer.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    def __init__(
        self,
        *,
        variant: str = "bicycle_gan",
        latent_networks: LatentNetworks = LatentNetworks(),  # noqa: B008, frozen
        discriminators: ScaledDiscriminators = ScaledDiscriminators(),  # noqa: B008, frozen
        l1_weight: float = 10.0,
        kl_weight: float = 0.01,
        latent_weight: float = 0.5,
        ema_decay: float | None = None,
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
        if variant not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise ConfigurationError(f"BicycleGan.variant = {variant!r}: unknown; use one of {known}")
        weights = {"l1_weight": l1_weight, "kl_weight": kl_weight, "latent_weight": latent_weight}
        check_at_least(0, of="BicycleGan", **weights)
        self.kinds = VARIANTS[variant]
        self.latent_networks = latent_networks
        self.latent_size = latent_networks.latent_size
        self.discriminators = discriminators
        self.l1_weight = l1_weight
        self.kl_weight = kl_weight
        self.latent_weight = latent_weight
        self.ema_decay = ema_decay
        self.optimizers = {
            "generator": generator_optimizer,
            "discriminators": discriminators.regularisation.optimizer(discriminator_optimizer),
        }

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds `generator`, `encoder` and the discriminators of each kind."""
        shapes = example["input"].shape, example["target"].shape
        networks = self.latent_networks.build(*shapes)
        for kind in self.kinds:
            networks |= self.discriminators.build(kind, *shapes)
        for network in networks.values():
            initialise(network, scheme="xavier")
        return networks

    def phases(self) -> tuple[Phase, ...]:
        """The phase of generator and encoder, then those of the discriminators."""
        updates = tuple(name for kind in self.kinds for name in self.discriminators.names(kind))
        optimizer = "discriminators"
        return (
            Phase(
                name="generator",
                loss=self.generator_loss,
                updates=("generator", "encoder"),
                optimizer="generator",
                ema_decay=self.ema_decay,
                reconstruction=self.reconstruction_loss
                if self.l1_weight and "encoded" in self.kinds
                else None,
            ),
            Phase(name="discriminators", loss=self.discriminator_loss, updates=updates, optimizer=optimizer),
            *self.discriminators.regularisation.phases(self.r1_loss, updates=updates, optimizer=optimizer),
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Computes a code and a fake of each kind.

        Returns:
          For each kind, "<kind>_code" [B, Z] and "<kind>" [B, H, W, C]; for "encoded" also "mean" and
          "log_variance" of the codes, [B, Z].
        """
        shape = (self.latent_networks.latent_size,)
        outputs: dict[str, tf.Tensor] = {}
        if "encoded" in self.kinds:
            mean, log_variance = step.networks["encoder"](step.batch["target"], training=True)  # [B, Z] each
            outputs |= {"mean": mean, "log_variance": log_variance}
            deviation = tf.exp(0.5 * log_variance) * step.seeds.normal("deviation", shape)
            outputs["encoded_code"] = mean + deviation
        if "random" in self.kinds:
            outputs["random_code"] = step.seeds.normal("z", shape)  # [B, Z]
        for kind in self.kinds:
            inputs = [step.batch["input"], outputs[f"{kind}_code"]]
            outputs[kind] = step.networks["generator"](inputs, training=True)
        return outputs

    def generator_loss(self, step: Step) -> dict[str, tf.Tensor | Term]:
        """The terms of generator and encoder, each [B]."""
        outputs = step.outputs
        terms: dict[str, tf.Tensor | Term] = {}
        for kind in self.kinds:
            terms |= self.discriminators.generator_terms(step, kind, outputs[kind])
        if "encoded" in self.kinds:
            terms |= self.reconstruction_loss(step)
        if "random" in self.kinds:
            mean, _ = step.networks["encoder"](outputs["random"], training=True)  # [B, Z]
            reaches = ("generator",) if "encoded" in self.kinds else ("generator", "encoder")
            terms["latent"] = Term(self.latent_weight * l1(mean, outputs["random_code"]), reaches)
        return terms

    def reconstruction_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The terms of a cVAE, each [B]: the distance from the encoded targets, and that of the codes."""
        outputs = step.outputs
        return {
            "l1": self.l1_weight * l1(outputs["encoded"], step.batch["target"]),
            "kl": self.kl_weight * kl_from_standard_normal(outputs["mean"], outputs["log_variance"]),
        }

    def discriminator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The terms of the discriminators of all kinds, each [B]."""
        terms: dict[str, tf.Tensor] = {}
        for kind in self.kinds:
            terms |= self.discriminators.discriminator_terms(step, kind, step.outputs[kind])
        return terms

    def r1_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """R1 of the discriminators of all kinds, each [B]."""
        terms: dict[str, tf.Tensor] = {}
        for kind in self.kinds:
            terms |= self.discriminators.r1_terms(step, kind)
        return terms

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The outputs for the codes of the batch, or else for the code 0, which is the most likely one."""
        codes = batch.get(LATENT_CODE)
        if codes is None:
            codes = tf.zeros([1, self.latent_size])
        return self._generate(networks, batch["input"], codes)

    def encode(self, networks: Mapping[str, keras.Model], targets: tf.Tensor) -> tf.Tensor:
        """The most likely codes of targets."""
        mean, _ = networks["encoder"](targets, training=False)
        return mean

    def preview(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Input, target, the output for the target's encoded code, then outputs for fixed random codes."""
        columns = {"input": batch["input"], "target": batch["target"]}
        columns["encoded"] = self._generate(networks, batch["input"], self.encode(networks, batch["target"]))
        for index in range(_PREVIEWED_CODES):
            code = tf.random.stateless_normal([1, self.latent_size], seed=(0, index))
            columns[f"random_{index}"] = self._generate(networks, batch["input"], code)
        return columns

    def _generate(
        self, networks: Mapping[str, keras.Model], images: tf.Tensor, codes: tf.Tensor
    ) -> tf.Tensor:
        """Outputs for images [B, H, W, C] and their codes [B, Z], or one code for all, [1, Z]."""
        codes = tf.broadcast_to(codes, [tf.shape(images)[0], codes.shape[-1]])
        return networks["generator"]([images, tf.cast(codes, images.dtype)], training=False)
