"""pix2pix: paired image-to-image translation (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.task import Adam, Phase, Step
from models.fidelity import Fidelity
from models.losses import feature_matching, mean_per_example, top_k, with_activations
from models.networks.patchgan import ACTIVATIONS, check_patchgan_size, patchgan
from models.regularisation import Regularisation
from models.side_information import SideInformation
from models.supervised import Supervised


class Pix2Pix(Supervised):
    """A generator that also stays close to the target, and a discriminator of (input, output) pairs.

    The fake is made once a step; the discriminator is updated on it first, then the generator against
    the updated discriminator, as the reference does.

    Args:
      generator, generator_filters, norm, dropout, inference_norm, side_information, l1_weight, fidelity,
        ema_decay, generator_optimizer: as of `models.supervised.Supervised`; norm and side information are
        those of both networks. Dropout is the paper's only source of noise.
      discriminator_filters: channels of the discriminator's first layer.
      gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`: "bce", as published, "lsgan", "hinge", "wgan_gp"
        (with its gradient penalty) or "relativistic".
      regularisation: of the discriminator; none by default.
      feature_matching_weight: of `models.losses.feature_matching` of output and target, 10 as published.
      top_k: share of the examples, those whose fakes look most real, that the adversarial term of the
        generator is made of; see `models.losses.top_k`.
      conditional: the discriminator sees the input beside the picture.
      discriminator_optimizer: its settings.
    """

    def __init__(
        self,
        *,
        generator: str = "unet_256",
        generator_filters: int = 64,
        discriminator_filters: int = 64,
        norm: str = "batch",
        dropout: bool = True,
        inference_norm: str = "batch_statistics",
        gan_loss: str = "bce",
        regularisation: Regularisation = Regularisation(),  # noqa: B008, frozen
        side_information: SideInformation = SideInformation(),  # noqa: B008, frozen
        l1_weight: float = 100.0,
        fidelity: Fidelity = Fidelity(),  # noqa: B008, frozen
        feature_matching_weight: float = 0.0,
        top_k: float = 1.0,
        conditional: bool = True,
        ema_decay: float | None = None,
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        super().__init__(
            generator=generator,
            generator_filters=generator_filters,
            norm=norm,
            dropout=dropout,
            inference_norm=inference_norm,
            side_information=side_information,
            l1_weight=l1_weight,
            fidelity=fidelity,
            ema_decay=ema_decay,
            generator_optimizer=generator_optimizer,
        )
        regularisation.check(gan_loss=gan_loss, norm=norm)
        name = type(self).__name__
        check_at_least(1, of=name, discriminator_filters=discriminator_filters)
        check_at_least(0, of=name, feature_matching_weight=feature_matching_weight)
        if not 0 < top_k <= 1:
            raise ConfigurationError(f"{name}.top_k = {top_k}: must lie in (0, 1]; 1 leaves it out")
        self.discriminator_filters = discriminator_filters
        self.gan_loss = gan_loss
        self.regularisation = regularisation
        self.feature_matching_weight = feature_matching_weight
        self.top_k = top_k
        self.conditional = conditional
        self.optimizers["discriminator"] = regularisation.optimizer(discriminator_optimizer)

    def networks(self, example):
        self._perceptual = self.fidelity.build(example["target"])
        generator = self.generator_of(example)
        height, width, channels = example["target"].shape
        check_patchgan_size(height, width)
        discriminator = patchgan(
            name="discriminator",
            input_channels=channels + (example["input"].shape[-1] if self.conditional else 0),
            filters=self.discriminator_filters,
            norm=self.norm,
            spectral_norm=self.regularisation.spectral_norm,
            side=self.side_information.shapes(example),
        )
        return {"generator": generator, "discriminator": discriminator}

    def phases(self):
        judging = {"updates": ("discriminator",), "optimizer": "discriminator"}
        discriminator = Phase(name="discriminator", loss=self.discriminator_loss, **judging)
        return discriminator, *self.regularisation.phases(self.r1_loss, **judging), *super().phases()

    def discriminator_loss(self, step: Step):
        """Half of all terms, which slows the discriminator against the generator."""
        real, fake = step.batch["target"], step.outputs["fake"]
        terms = self.regularisation.discriminator_terms(
            self._judge(step), real=real, fake=fake, gan_loss=self.gan_loss, seeds=step.seeds
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def r1_loss(self, step: Step):
        """Half of it, like the other terms of the discriminator."""
        terms = self.regularisation.r1_terms(self._judge(step), real=step.batch["target"], seeds=step.seeds)
        return {name: 0.5 * value for name, value in terms.items()}

    def generator_loss(self, step: Step):
        real, fake, seen = step.batch["target"], step.outputs["fake"], {}
        judge = self._judge(step, seen)
        terms = {
            "gan": self.regularisation.generator_loss(judge, real=real, fake=fake, gan_loss=self.gan_loss)
        }
        *activations, logits = seen["fake"]
        if self.top_k < 1:
            terms["gan"] = top_k(terms["gan"], mean_per_example(logits), step, share=self.top_k)
        if self.feature_matching_weight:
            judge(real, "fake")  # augmented as the fake was
            distance = feature_matching(activations, seen["fake"][:-1])
            terms["feature_matching"] = self.feature_matching_weight * distance
        return terms | super().generator_loss(step)

    def _judge(self, step: Step, seen: dict | None = None):
        """The discriminator as `Regularisation` wants it; `seen` gets by role what it last made."""
        network = step.networks["discriminator"]
        if self.feature_matching_weight:
            network = with_activations(network, [*ACTIVATIONS, "logits"])

        def judge(pictures: tf.Tensor, role: str) -> tf.Tensor:
            def augmented(x):  # all of them alike
                return self.regularisation.augment(x, step.seeds, role)

            shown = [step.batch["input"], pictures] if self.conditional else [pictures]
            shown = tf.concat([augmented(x) for x in shown], axis=-1)  # [B, H, W, Cin + Cout]
            shown = self.side_information.beside(shown, step.batch, change=augmented)
            made = network(shown, training=True)
            outputs = made if isinstance(made, list) else [made]
            if seen is not None:
                seen[role] = outputs
            return outputs[-1]

        return judge
