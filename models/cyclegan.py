"""CycleGAN: unpaired image-to-image translation (Zhu et al., arXiv 1703.10593)."""

from __future__ import annotations

import tensorflow as tf

from engine.task import Adam, ConfigurationError, Phase, Step, Task
from models.image_pool import ImagePool
from models.losses import gan_loss, l1
from models.networks import build_generator, check_image_size
from models.patchgan import check_patchgan_size, patchgan

_OTHER = {"input": "target", "target": "input"}


class CycleGan(Task):
    """A generator for each direction, which undo each other, and a discriminator for each domain.

    Both generators are updated first, then both discriminators on fakes from a pool, made before the
    generators' update. The networks are `input_to_target`, `target_to_input`, `input_discriminator` and
    `target_discriminator`.

    Args:
      generator, generator_filters, discriminator_filters, norm, dropout, inference_norm, gan_loss: as of
        `models.pix2pix.Pix2Pix`, here of both generators and both discriminators.
      input_cycle_weight, target_cycle_weight: weights of the L1 distance of an input, a target from
        what both generators in turn make of it (lambda_A, lambda_B for direction AtoB).
      identity_weight: weight of the L1 distance of a picture from what the generator of its own domain
        makes of it, as a part of the cycle weight; 0 leaves it out.
      pool_size: fakes of each domain that are kept for its discriminator; 0 for none.
      generator_optimizer, discriminator_optimizer: settings; one optimizer has both generators, one both
        discriminators.
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
        input_cycle_weight: float = 10.0,
        target_cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
        generator_optimizer: Adam = Adam(),  # noqa: B008, frozen
        discriminator_optimizer: Adam = Adam(),  # noqa: B008, frozen
    ):
        if gan_loss not in ("bce", "lsgan"):
            raise ConfigurationError(f"CycleGan.gan_loss = {gan_loss!r}: unknown; use 'bce' or 'lsgan'")
        self.generator = generator
        self._generators = {"filters": generator_filters, "norm": norm, "dropout": dropout}
        self._generators |= {"inference_norm": inference_norm}
        self._discriminators = {"filters": discriminator_filters, "norm": norm}
        self.norm = norm
        self.gan_loss = gan_loss
        self.cycle_weights = {"input": input_cycle_weight, "target": target_cycle_weight}
        self.identity_weight = identity_weight
        self.pools = {side: ImagePool(name=f"{side}_pool", size=pool_size) for side in _OTHER}
        self.optimizers = {"generators": generator_optimizer, "discriminators": discriminator_optimizer}

    def networks(self, example):
        channels = {side: example[side].shape[-1] for side in _OTHER}
        if self.identity_weight and channels["input"] != channels["target"]:
            raise ConfigurationError(
                f"CycleGan.identity_weight = {self.identity_weight}: needs domains of as many channels, but "
                f"inputs have {channels['input']} and targets {channels['target']}; use 0"
            )
        networks = {}
        try:
            check_image_size(self.generator, *example["input"].shape[:2])
            check_patchgan_size(*example["input"].shape[:2])
            for side, other in _OTHER.items():
                name, sizes = f"{side}_to_{other}", {"input_channels": channels[side]}
                networks[name] = build_generator(
                    self.generator, name=name, output_channels=channels[other], **sizes, **self._generators
                )
                name = f"{side}_discriminator"
                networks[name] = patchgan(name=name, **sizes, **self._discriminators)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        return networks

    def state(self, example):
        pools = {side: pool.state(example[side].shape) for side, pool in self.pools.items()}
        return pools["input"] | pools["target"]

    def phases(self):
        generators = ("input_to_target", "target_to_input")
        discriminators = ("input_discriminator", "target_discriminator")
        return (
            Phase(name="generators", loss=self.generate, updates=generators, optimizer="generators"),
            Phase(name="discriminators", loss=self.judge, updates=discriminators, optimizer="discriminators"),
        )

    def forward(self, step: Step):
        outputs = {}
        for side, other in _OTHER.items():
            generator = step.networks[f"{other}_to_{side}"]
            if self.identity_weight:
                fake, kept = self._both(generator, step.batch[other], step.batch[side])
                outputs |= {f"fake_{side}": fake, f"kept_{side}": kept}
            else:
                outputs[f"fake_{side}"] = generator(step.batch[other], training=True)
        return outputs

    def generate(self, step: Step):
        terms = {}
        for side, other in _OTHER.items():
            real, weight, outputs = step.batch[side], self.cycle_weights[side], step.outputs
            judged = step.networks[f"{side}_discriminator"](outputs[f"fake_{side}"], training=True)
            terms[f"gan_{side}"] = gan_loss(judged, real=True, kind=self.gan_loss)
            cycled = step.networks[f"{other}_to_{side}"](outputs[f"fake_{other}"], training=True)
            terms[f"cycle_{side}"] = weight * l1(cycled, real)
            if self.identity_weight:
                distance = l1(outputs[f"kept_{side}"], real)
                terms[f"identity_{side}"] = weight * self.identity_weight * distance
        return terms

    def judge(self, step: Step):
        """Half the mean of both terms, as in `models.pix2pix`."""
        terms = {}
        for side in _OTHER:
            fakes = self.pools[side].exchange(step, step.outputs[f"fake_{side}"])
            real, fake = self._both(step.networks[f"{side}_discriminator"], step.batch[side], fakes)
            terms[f"real_{side}"] = 0.5 * gan_loss(real, real=True, kind=self.gan_loss)
            terms[f"fake_{side}"] = 0.5 * gan_loss(fake, real=False, kind=self.gan_loss)
        return terms

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

    def _both(self, network, first: tf.Tensor, second: tf.Tensor) -> list[tf.Tensor]:
        """The network on two batches, each with batch statistics of its own."""
        if self.norm == "batch":
            return [network(first, training=True), network(second, training=True)]
        return tf.split(network(tf.concat([first, second], 0), training=True), 2)  # of [2 B, ...]
