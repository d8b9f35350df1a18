"""BicycleGAN: one input, many outputs, chosen by a latent code (Zhu et al., arXiv 1711.11586)."""

from __future__ import annotations

import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.task import Adam, Phase, Step, Task, Term
from models.initialisation import initialise
from models.latent_networks import LatentNetworks
from models.losses import kl_from_standard_normal, l1
from models.scaled_discriminators import ScaledDiscriminators

VARIANTS = {"bicycle_gan": ("encoded", "random"), "cvae_gan": ("encoded",), "clr_gan": ("random",)}
"""Where the codes of a variant's fakes come from: the target, through the encoder, or N(0, 1)."""

_PREVIEWED_CODES = 4


class BicycleGan(Task):
    """A generator that takes a code, an encoder that finds it, and discriminators for each kind of code.

    cVAE-GAN gives the target back from its own code, whose distribution is held near N(0, 1); cLR-GAN finds
    a drawn code again in the picture made with it. BicycleGAN is both. As in the authors' code:

    - Generator and encoder make one update, in which the latent loss moves the generator alone: moving
      both would let them hide the code in the picture. In "clr_gan" it moves the encoder too, since
      nothing else would.
    - Then the discriminators judge the fakes made before that update, each kind by its own.
    - Initial kernels are Xavier's with a gain of 0.02.

    Unlike there, where half of a batch goes to each part, every example takes part in both.

    Args:
      variant: one of VARIANTS.
      latent_networks: settings of generator and encoder.
      discriminators: settings of each kind's discriminators.
      l1_weight: of the L1 distance of the target from what is made with its own code.
      kl_weight: of the KL divergence of the encoder's codes from N(0, 1), summed over the code.
      latent_weight: of the L1 distance of a drawn code from the mean that the encoder finds.
      ema_decay: of an average of generator and encoder for evaluation; None keeps none.
      generator_optimizer, discriminator_optimizer: settings; the first has the encoder too.
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
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        if variant not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise ConfigurationError(f"BicycleGan.variant = {variant!r}: unknown; use one of {known}")
        weights = {"l1_weight": l1_weight, "kl_weight": kl_weight, "latent_weight": latent_weight}
        check_at_least(0, of="BicycleGan", **weights)
        self.kinds = VARIANTS[variant]
        self.latent_networks = latent_networks
        self.discriminators = discriminators
        self.l1_weight = l1_weight
        self.kl_weight = kl_weight
        self.latent_weight = latent_weight
        self.ema_decay = ema_decay
        judging = discriminators.regularisation.optimizer(discriminator_optimizer)
        self.optimizers = {"generator": generator_optimizer, "discriminators": judging}

    def networks(self, example):
        shapes = example["input"].shape, example["target"].shape
        networks = self.latent_networks.build(*shapes)
        for kind in self.kinds:
            networks |= self.discriminators.build(kind, *shapes)
        for network in networks.values():
            initialise(network, scheme="xavier")
        return networks

    def phases(self):
        making = {"updates": ("generator", "encoder"), "optimizer": "generator"}
        names = [name for kind in self.kinds for name in self.discriminators.names(kind)]
        judging = {"updates": tuple(names), "optimizer": "discriminators"}
        return (
            Phase(name="generator", loss=self.generate, ema_decay=self.ema_decay, **making),
            Phase(name="discriminators", loss=self.judge, **judging),
            *self.discriminators.regularisation.phases(self.r1, **judging),
        )

    def forward(self, step: Step):
        shape, outputs = (self.latent_networks.latent_size,), {}
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

    def generate(self, step: Step):
        outputs, terms = step.outputs, {}
        for kind in self.kinds:
            terms |= self.discriminators.generator_terms(step, kind, outputs[kind])
        if "encoded" in self.kinds:
            terms["l1"] = self.l1_weight * l1(outputs["encoded"], step.batch["target"])
            terms["kl"] = self.kl_weight * kl_from_standard_normal(outputs["mean"], outputs["log_variance"])
        if "random" in self.kinds:
            found, _ = step.networks["encoder"](outputs["random"], training=True)  # [B, Z]
            reaches = ("generator",) if "encoded" in self.kinds else ("generator", "encoder")
            terms["latent"] = Term(self.latent_weight * l1(found, outputs["random_code"]), reaches)
        return terms

    def judge(self, step: Step):
        terms = {}
        for kind in self.kinds:
            terms |= self.discriminators.discriminator_terms(step, kind, step.outputs[kind])
        return terms

    def r1(self, step: Step):
        terms = {}
        for kind in self.kinds:
            terms |= self.discriminators.r1_terms(step, kind)
        return terms

    def translate(self, networks, batch):
        """The picture of the code 0, the most likely one."""
        return self._make(networks, batch["input"], tf.zeros([1, self.latent_networks.latent_size]))

    def preview(self, networks, batch):
        """Input, target, what is made with the target's own code, then with codes that stay the same."""
        columns = {"input": batch["input"], "target": batch["target"]}
        mean, _ = networks["encoder"](batch["target"], training=False)
        columns["encoded"] = self._make(networks, batch["input"], mean)
        for index in range(_PREVIEWED_CODES):
            code = tf.random.stateless_normal([1, self.latent_networks.latent_size], seed=(0, index))
            columns[f"random_{index}"] = self._make(networks, batch["input"], code)
        return columns

    def _make(self, networks, pictures: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Pictures [B, H, W, C] with codes [B, Z], or all with one, [1, Z]."""
        codes = tf.broadcast_to(codes, [tf.shape(pictures)[0], codes.shape[-1]])
        return networks["generator"]([pictures, tf.cast(codes, pictures.dtype)], training=False)
