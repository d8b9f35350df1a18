"""CycleGAN: unpaired image-to-image translation (Zhu et al., arXiv 1703.10593)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.optimizers import Adam, Optimizer
from engine.task import Phase, Step, Task
from models.discriminators.domain_discriminator import DomainDiscriminator
from models.discriminators.image_pool import ImagePool, pass_through_pools
from models.losses import l1
from models.networks.generators import build_generator, check_image_size
from models.networks.joint_pass import pass_both
from models.regularisation import Regularisation

_OTHER = {"input": "target", "target": "input"}
"""Domain -> the other domain."""


class CycleGan(Task):
    """A generator for each direction, which invert each other, and a discriminator for each domain.

    A step updates both generators first. It then updates both discriminators on fakes from a pool, which gets
    the fakes computed before the generators' update. The networks are `input_to_target`, `target_to_input`,
    `input_discriminator` and `target_discriminator`.

    Args:
      generator, generator_filters, discriminator_filters, norm, dropout, inference_norm, gan_loss,
        regularisation: see `models.pix2pix.Pix2Pix`; for both generators and both discriminators.
      input_cycle_weight: weight of the L1 distance between an input and its reconstruction by both
        generators (lambda_A for direction AtoB).
      target_cycle_weight: the same for targets (lambda_B for direction AtoB).
      identity_weight: weight of the L1 distance between an image and the output of the generator of its own
        domain for it, relative to the cycle weight; 0 leaves it out.
      pool_size: fakes of each domain that its image pool holds; 0 for no pool.
      ema_decay: decay per step of moving averages of the generators for evaluation; None keeps none.
      generator_optimizer: settings of the optimizer of both generators.
      discriminator_optimizer: settings of the optimizer of both discriminators.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    translates_back = True

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
        input_cycle_weight: float = 10.0,
        target_cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        ema_decay: float | None = None,
        generator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Optimizer = Adam(),  # noqa: B008, frozen
    ) -> None:
        check_at_least(
            1, of="CycleGan", generator_filters=generator_filters, discriminator_filters=discriminator_filters
        )
        check_at_least(
            0,
            of="CycleGan",
            identity_weight=identity_weight,
            input_cycle_weight=input_cycle_weight,
            target_cycle_weight=target_cycle_weight,
        )
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
        self.discriminators = {
            domain: DomainDiscriminator(
                network=f"{domain}_discriminator",
                filters=discriminator_filters,
                norm=norm,
                gan_loss=gan_loss,
                regularisation=regularisation,
                domain=domain,
            )
            for domain in _OTHER
        }
        self.cycle_weights = {"input": input_cycle_weight, "target": target_cycle_weight}
        self.identity_weight = identity_weight
        self.pools = {domain: ImagePool(name=f"{domain}_pool", size=pool_size) for domain in _OTHER}
        self.ema_decay = ema_decay
        self.optimizers = {
            "generators": generator_optimizer,
            "discriminators": regularisation.optimizer(discriminator_optimizer),
        }

    def networks(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, keras.Model]:
        """Builds both generators and both discriminators."""
        channels = {domain: example[domain].shape[-1] for domain in _OTHER}
        if self.identity_weight and channels["input"] != channels["target"]:
            raise ConfigurationError(
                f"CycleGan.identity_weight = {self.identity_weight}: needs domains of as many channels, but "
                f"inputs have {channels['input']} and targets {channels['target']}; use 0"
            )
        check_image_size(self.generator, *example["input"].shape[:2])
        networks = {}
        for domain, other in _OTHER.items():
            name = f"{domain}_to_{other}"
            networks[name] = self._build_generator(
                name=name, input_channels=channels[domain], output_channels=channels[other]
            )
            networks[f"{domain}_discriminator"] = self.discriminators[domain].build(example[domain].shape)
        return networks

    def state(self, example: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Variable]:
        """The variables of both image pools."""
        states = {domain: pool.state(example[domain].shape) for domain, pool in self.pools.items()}
        return states["input"] | states["target"]

    def phases(self) -> tuple[Phase, ...]:
        """The phase of the generators, then those of the discriminators."""
        updates, optimizer = ("input_discriminator", "target_discriminator"), "discriminators"
        has_cycles = any(self.cycle_weights.values())  # the identity weight is relative to them
        return (
            Phase(
                name="generators",
                loss=self.generator_loss,
                updates=("input_to_target", "target_to_input"),
                optimizer="generators",
                ema_decay=self.ema_decay,
                reconstruction=self.reconstruction_loss if has_cycles else None,
            ),
            Phase(name="discriminators", loss=self.discriminator_loss, updates=updates, optimizer=optimizer),
            *self.regularisation.phases(self.r1_loss, updates=updates, optimizer=optimizer),
        )

    def forward(self, step: Step) -> dict[str, tf.Tensor]:
        """Computes the generators' outputs, each [B, H, W, C].

        Returns:
          For each domain "fake_<domain>", from the other domain, and "identity_<domain>", from itself.
        """
        outputs: dict[str, tf.Tensor] = {}
        for domain, other in _OTHER.items():
            generator = step.networks[f"{other}_to_{domain}"]
            if self.identity_weight:
                fake, identity = pass_both(generator, step.batch[other], step.batch[domain])
                outputs |= {f"fake_{domain}": fake, f"identity_{domain}": identity}
            else:
                outputs[f"fake_{domain}"] = generator(step.batch[other], training=True)
        return outputs

    def generator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The adversarial, cycle and identity terms of each domain, each [B]."""
        terms: dict[str, tf.Tensor] = {}
        for domain, discriminator in self.discriminators.items():
            terms[f"gan_{domain}"] = discriminator.generator_loss(
                step, real=step.batch[domain], fake=step.outputs[f"fake_{domain}"]
            )
            terms |= self._reconstruction_terms(step, domain)
        return terms

    def reconstruction_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The cycle and identity terms of each domain, each [B]."""
        terms: dict[str, tf.Tensor] = {}
        for domain in _OTHER:
            terms |= self._reconstruction_terms(step, domain)
        return terms

    def _reconstruction_terms(self, step: Step, domain: str) -> dict[str, tf.Tensor]:
        """The cycle and identity terms of a domain, each [B]."""
        other, outputs = _OTHER[domain], step.outputs
        real, weight = step.batch[domain], self.cycle_weights[domain]
        cycled = step.networks[f"{other}_to_{domain}"](outputs[f"fake_{other}"], training=True)
        terms = {f"cycle_{domain}": weight * l1(cycled, real)}
        if self.identity_weight:
            distance = l1(outputs[f"identity_{domain}"], real)
            terms[f"identity_{domain}"] = weight * self.identity_weight * distance
        return terms

    def discriminator_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The terms of both discriminators, each [B]; the fakes come from the pools."""
        fakes = {domain: step.outputs[f"fake_{domain}"] for domain in _OTHER}
        fakes = pass_through_pools(self.pools, step, fakes)
        terms: dict[str, tf.Tensor] = {}
        for domain, discriminator in self.discriminators.items():
            new = discriminator.discriminator_terms(step, real=step.batch[domain], fake=fakes[domain])
            terms |= {f"{name}_{domain}": value for name, value in new.items()}
        return terms

    def r1_loss(self, step: Step) -> dict[str, tf.Tensor]:
        """R1 of both discriminators, each [B]."""
        return {
            f"penalty_{domain}": discriminator.r1_penalty(step, real=step.batch[domain])
            for domain, discriminator in self.discriminators.items()
        }

    def translate(self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The outputs of `input_to_target`."""
        return networks["input_to_target"](batch["input"], training=False)

    def translate_back(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """The outputs of `target_to_input`."""
        return networks["target_to_input"](batch["target"], training=False)

    def reconstructions(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """The images of each domain after both generators, with the images themselves."""
        columns = self.preview(networks, batch)
        return {f"cycle_{domain}": (columns[f"cycled_{domain}"], batch[domain]) for domain in _OTHER}

    def preview(
        self, networks: Mapping[str, keras.Model], batch: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Input, its translation and its reconstruction; then the same for the target."""
        columns: dict[str, tf.Tensor] = {}
        for domain, other in _OTHER.items():
            fake = networks[f"{domain}_to_{other}"](batch[domain], training=False)
            cycled = networks[f"{other}_to_{domain}"](fake, training=False)
            columns |= {domain: batch[domain], f"fake_{other}": fake, f"cycled_{domain}": cycled}
        return columns
