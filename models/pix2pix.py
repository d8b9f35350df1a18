"""pix2pix: paired image-to-image translation (Isola et al., arXiv 1611.07004)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import keras
import tensorflow as tf

from data.roles import INPUT, SIDE_MAP, TARGET
from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import Phase, Step
from models.fidelity import Fidelity
from models.losses import feature_matching, mean_per_example, top_k, with_activations
from models.networks.joint_pass import pass_both
from models.networks.patchgan import ACTIVATIONS, check_patchgan_size, patchgan
from models.regularisation import Discriminator, Regularisation
from models.side_information import SideInformation
from models.supervised import Supervised

Outputs = dict[str, list[tf.Tensor]]
"""Role of images -> the discriminator's outputs for them: activations, if needed, then logits."""


class Pix2Pix(Supervised):
    """A generator that also learns from targets, and a discriminator of pairs (input, output).

    A step computes the fakes once. It first updates the discriminator on them, then the generator against the
    updated discriminator, like the reference.

    Args:
      generator, generator_filters, norm, dropout, inference_norm, side_information, l1_weight, fidelity,
        ema_decay, generator_optimizer: see `models.supervised.Supervised`; norm and side information are
        those of both networks. Dropout is the paper's only source of noise.
      discriminator_filters: channels of the discriminator's first layer.
      gan_loss: one of `models.losses.ADVERSARIAL_LOSSES`: "bce", as published, "lsgan", "hinge", "wgan_gp"
        (with its gradient penalty) or "relativistic".
      regularisation: of the discriminator; none by default.
      feature_matching_weight: weight of `models.losses.feature_matching` of output and target; 40 is the
        published strength.
      top_k: fraction of the examples that the generator's adversarial term is computed from: those whose
        fakes look most real; see `models.losses.top_k`.
      conditional: whether the discriminator also sees the input.
      discriminator_optimizer: settings of the discriminator's optimizer.

    Raises:
      ConfigurationError: a setting is out of its range, or settings contradict each other.
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
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
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
        self.optimizers = {
            **self.optimizers,
            "discriminator": regularisation.optimizer(discriminator_optimizer),
        }

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds `generator` and `discriminator`."""
        generator = self.build_generator(example)
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

    def phases(self) -> tuple[Phase, ...]:
        """The discriminator's phases, then the generator's."""
        updates, optimizer = ("discriminator",), "discriminator"
        reconstruction = self.reconstruction_loss if self.l1_weight or self.fidelity.weights else None
        return (
            Phase(name="discriminator", loss=self.discriminator_loss, updates=updates, optimizer=optimizer),
            *self.regularisation.phases(self.r1_loss, updates=updates, optimizer=optimizer),
            *(dataclasses.replace(phase, reconstruction=reconstruction) for phase in super().phases()),
        )

    def discriminator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The discriminator's terms, each [B]; halved, to slow it down against the generator."""
        real, fake = step.batch["target"], step.outputs["fake"]
        shown = self._shown(step, fake, "fake"), self._shown(step, real, "real")
        fake_logits, real_logits = pass_both(step.networks["discriminator"], *shown)
        terms = self.regularisation.discriminator_terms(
            self._discriminator(step),
            real=real,
            fake=fake,
            gan_loss=self.gan_loss,
            seeds=step.seeds,
            logits=(real_logits, fake_logits),
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def r1_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """R1, [B], halved like the discriminator's other terms."""
        terms = self.regularisation.r1_terms(
            self._discriminator(step), real=step.batch["target"], seeds=step.seeds
        )
        return {name: 0.5 * value for name, value in terms.items()}

    def generator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The adversarial term, feature matching and the distances from the targets, each [B]."""
        real, fake = step.batch["target"], step.outputs["fake"]
        outputs: Outputs = {}
        discriminator = self._discriminator(step, outputs)
        loss = self.regularisation.generator_loss
        terms = {"gan": loss(discriminator, real=real, fake=fake, gan_loss=self.gan_loss)}
        *activations, logits = outputs["fake"]
        if self.top_k < 1:
            terms["gan"] = top_k(terms["gan"], mean_per_example(logits), step, fraction=self.top_k)
        if self.feature_matching_weight:
            discriminator(real, "fake")  # the role gives them the same augmentation as the fakes
            distance = feature_matching(activations, outputs["fake"][:-1])
            terms["feature_matching"] = self.feature_matching_weight * distance
        return terms | self.reconstruction_loss(step)

    def _discriminator(self, step: Step, outputs: Outputs | None = None) -> Discriminator:
        """The discriminator as a function for `Regularisation`; `outputs` gets its last outputs by role."""
        network = step.networks["discriminator"]
        if self.feature_matching_weight:
            network = with_activations(network, [*ACTIVATIONS, "logits"])

        def discriminator(images: tf.Tensor, role: str) -> tf.Tensor:
            found = network(self._shown(step, images, role), training=True)
            found = found if isinstance(found, list) else [found]
            if outputs is not None:
                outputs[role] = found
            return found[-1]

        return discriminator

    def _shown(self, step: Step, images: tf.Tensor, role: str) -> tf.Tensor | list[tf.Tensor]:
        """The discriminator's inputs for images [B, H, W, C], augmented by the role."""

        def augment(x: tf.Tensor, feature: str) -> tf.Tensor:  # changes all of them in the same way
            are_labels = feature in step.label_roles
            return self.regularisation.augment(x, step.seeds, role, are_labels=are_labels)

        shown = {INPUT: step.batch["input"]} if self.conditional else {}
        shown |= {TARGET: images}
        augmented = [augment(x, feature) for feature, x in shown.items()]
        images = tf.concat(augmented, axis=-1)  # [B, H, W, Cin + Cout]
        return self.side_information.network_inputs(
            images, step.batch, change=functools.partial(augment, feature=SIDE_MAP)
        )
