"""CycleGAN: unpaired image-to-image translation (Zhu et al., arXiv 1703.10593)."""

from __future__ import annotations

import functools

from engine.errors import ConfigurationError, check_at_least
from engine.task import Adam, Phase, Step, Task
from models.discriminators.domain_discriminator import DomainDiscriminator
from models.discriminators.image_pool import ImagePool
from models.losses import l1
from models.networks.generators import build_generator, check_image_size
from models.networks.joint_pass import pass_both
from models.regularisation import Regularisation

_OTHER = {"input": "target", "target": "input"}


class CycleGan(Task):
    """A generator for each direction, which undo each other, and a discriminator for each domain.

    Both generators are updated first, then both discriminators on fakes from a pool, made before the
    generators' update. The networks are `input_to_target`, `target_to_input`, `input_discriminator` and
    `target_discriminator`.

    Args:
      generator, generator_filters, discriminator_filters, norm, dropout, inference_norm, gan_loss,
        regularisation: as of `models.pix2pix.Pix2Pix`, here of both generators and both discriminators.
      input_cycle_weight, target_cycle_weight: weights of the L1 distance of an input, a target from
        what both generators in turn make of it (lambda_A, lambda_B for direction AtoB).
      identity_weight: weight of the L1 distance of a picture from what the generator of its own domain
        makes of it, as a part of the cycle weight; 0 leaves it out.
      pool_size: fakes of each domain that are kept for its discriminator; 0 for none.
      ema_decay: keeps moving averages of the generators for evaluation; None keeps none.
      generator_optimizer, discriminator_optimizer: settings; each has both networks of its kind.
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
        input_cycle_weight: float = 10.0,
        target_cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        ema_decay: float | None = None,
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        filters = {"generator_filters": generator_filters, "discriminator_filters": discriminator_filters}
        check_at_least(1, of="CycleGan", **filters)
        cycles = {"input_cycle_weight": input_cycle_weight, "target_cycle_weight": target_cycle_weight}
        check_at_least(0, of="CycleGan", identity_weight=identity_weight, **cycles)
        self.generator = generator
        self.norm = norm
        generators = {"filters": generator_filters, "dropout": dropout, "inference_norm": inference_norm}
        self._build_generator = functools.partial(build_generator, generator, norm=norm, **generators)
        self.regularisation = regularisation
        judge = {"filters": discriminator_filters, "norm": norm}
        judge |= {"gan_loss": gan_loss, "regularisation": regularisation}
        self.judges = {side: DomainDiscriminator(network=f"{side}_discriminator", **judge) for side in _OTHER}
        self.cycle_weights = {"input": input_cycle_weight, "target": target_cycle_weight}
        self.identity_weight = identity_weight
        self.pools = {side: ImagePool(name=f"{side}_pool", size=pool_size) for side in _OTHER}
        self.ema_decay = ema_decay
        discriminators = regularisation.optimizer(discriminator_optimizer)
        self.optimizers = {"generators": generator_optimizer, "discriminators": discriminators}

    def networks(self, example):
        channels = {side: example[side].shape[-1] for side in _OTHER}
        if self.identity_weight and channels["input"] != channels["target"]:
            raise ConfigurationError(
                f"CycleGan.identity_weight = {self.identity_weight}: needs domains of as many channels, but "
                f"inputs have {channels['input']} and targets {channels['target']}; use 0"
            )
        check_image_size(self.generator, *example["input"].shape[:2])
        networks = {}
        for side, other in _OTHER.items():
            sizes = {"input_channels": channels[side], "output_channels": channels[other]}
            name = f"{side}_to_{other}"
            networks[name] = self._build_generator(name=name, **sizes)
            networks[f"{side}_discriminator"] = self.judges[side].build(example[side].shape)
        return networks

    def state(self, example):
        input_pool, target_pool = (pool.state(example[side].shape) for side, pool in self.pools.items())
        return input_pool | target_pool

    def phases(self):
        generators = {"updates": ("input_to_target", "target_to_input"), "ema_decay": self.ema_decay}
        judging = {"updates": ("input_discriminator", "target_discriminator"), "optimizer": "discriminators"}
        return (
            Phase(name="generators", loss=self.generate, optimizer="generators", **generators),
            Phase(name="discriminators", loss=self.judge, **judging),
            *self.regularisation.phases(self.r1_loss, **judging),
        )

    def forward(self, step: Step):
        outputs = {}
        for side, other in _OTHER.items():
            generator = step.networks[f"{other}_to_{side}"]
            if self.identity_weight:
                fake, kept = pass_both(generator, step.batch[other], step.batch[side])
                outputs |= {f"fake_{side}": fake, f"kept_{side}": kept}
            else:
                outputs[f"fake_{side}"] = generator(step.batch[other], training=True)
        return outputs

    def generate(self, step: Step):
        terms = {}
        for side, other in _OTHER.items():
            real, weight, outputs = step.batch[side], self.cycle_weights[side], step.outputs
            fake = outputs[f"fake_{side}"]
            terms[f"gan_{side}"] = self.judges[side].generator_loss(step, real=real, fake=fake)
            cycled = step.networks[f"{other}_to_{side}"](outputs[f"fake_{other}"], training=True)
            terms[f"cycle_{side}"] = weight * l1(cycled, real)
            if self.identity_weight:
                terms[f"identity_{side}"] = weight * self.identity_weight * l1(outputs[f"kept_{side}"], real)
        return terms

    def judge(self, step: Step):
        terms = {}
        for side, judge in self.judges.items():
            fake = self.pools[side].exchange(step, step.outputs[f"fake_{side}"])
            new = judge.discriminator_terms(step, real=step.batch[side], fake=fake)
            terms |= {f"{name}_{side}": value for name, value in new.items()}
        return terms

    def r1_loss(self, step: Step):
        real = step.batch
        return {f"penalty_{s}": judge.r1_penalty(step, real=real[s]) for s, judge in self.judges.items()}

    def translate(self, networks, batch):
        return networks["input_to_target"](batch["input"], training=False)

    def reconstructions(self, networks, batch):
        """What is left of a picture after both generators."""
        columns = self.preview(networks, batch)
        return {f"cycle_{side}": (columns[f"cycled_{side}"], batch[side]) for side in _OTHER}

    def preview(self, networks, batch):
        """Input, its translation and that back again; then the same from the target."""
        columns = {}
        for side, other in _OTHER.items():
            there = networks[f"{side}_to_{other}"](batch[side], training=False)
            back = networks[f"{other}_to_{side}"](there, training=False)
            columns |= {side: batch[side], f"fake_{other}": there, f"cycled_{side}": back}
        return columns
