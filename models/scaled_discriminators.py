"""Discriminators of patches at several scales, which judge the same pictures at full size, half of it, ...

Source: Wang et al., arXiv 1711.11585, section 3.2; as in the authors' code of BicycleGAN
(junyanz/BicycleGAN), each scale has half the filters of the one before.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError, check_at_least
from engine.task import Step
from models.networks.layers import image_input
from models.networks.patchgan import check_patchgan_size, patchgan
from models.regularisation import Judge, Regularisation


@keras.saving.register_keras_serializable(package="gantry")
class HalveSize(keras.layers.Layer):
    """Means of 3x3 pixels around every second one: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    As PyTorch's `AvgPool2d(3, stride=2, padding=1, count_include_pad=False)`. SAME has the same sizes but,
    where they are even, windows one pixel further on.
    """

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height and -(-height // 2), width and -(-width // 2), channels)

    def call(self, x):
        def pool(y):
            y = tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]])
            return tf.nn.avg_pool2d(y, 3, 2, "VALID")

        return pool(x) / pool(tf.ones_like(x[:1, :, :, :1]))  # what lies outside does not count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledDiscriminators:
    """Settings of a set of discriminators, one network a scale; their losses are added.

    Terms are dictionaries of losses [B] by name.

    Args:
      scales: how many there are.
      filters: channels of the first layer at full size.
      conditional: whether they see the input beside the picture, as in pix2pix.
      norm, gan_loss: as of `models.pix2pix.Pix2Pix`.
      regularisation: of each.
    """

    scales: int = 2
    filters: int = 64
    conditional: bool = False
    norm: str = "instance"
    gan_loss: str = "lsgan"
    regularisation: Regularisation = Regularisation()

    def __post_init__(self):
        self.regularisation.check(gan_loss=self.gan_loss, norm=self.norm)
        check_at_least(1, of="ScaledDiscriminators", scales=self.scales, filters=self.filters)

    def names(self, kind: str) -> tuple[str, ...]:
        """Of the networks of the set called `kind`, from full size down."""
        return tuple(f"{kind}_discriminator_{scale}" for scale in range(1, self.scales + 1))

    def build(
        self, kind: str, input_shape: Sequence[int], target_shape: Sequence[int]
    ) -> dict[str, keras.Model]:
        """The networks for pictures [H, W, C], by name.

        Raises:
          ConfigurationError: the coarsest scale leaves no patch to judge.
        """
        shrink = 2 ** (self.scales - 1)
        try:
            check_patchgan_size(*(-(-size // shrink) for size in target_shape[:2]))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"ScaledDiscriminators.scales = {self.scales}: at the smallest, {error}; or use fewer scales"
            ) from error
        channels = target_shape[-1] + (input_shape[-1] if self.conditional else 0)
        return {
            name: self._network(name, channels, halvings) for halvings, name in enumerate(self.names(kind))
        }

    def generator_terms(self, step: Step, kind: str, fake: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """What the generator minimises."""

        def terms(judge):
            loss = self.regularisation.generator_loss
            return {"gan": loss(judge, real=step.batch["target"], fake=fake, gan_loss=self.gan_loss)}

        return self._added(step, kind, terms)

    def discriminator_terms(self, step: Step, kind: str, fake: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """What the discriminators minimise: real are the targets."""

        def terms(judge):
            pictures = {"real": step.batch["target"], "fake": fake}
            return self.regularisation.discriminator_terms(
                judge, gan_loss=self.gan_loss, seeds=step.seeds, **pictures
            )

        return self._added(step, kind, terms)

    def r1_terms(self, step: Step, kind: str) -> Mapping[str, tf.Tensor]:
        """The penalty of `Regularisation.phases`."""

        def terms(judge):
            return self.regularisation.r1_terms(judge, real=step.batch["target"], seeds=step.seeds)

        return self._added(step, kind, terms)

    def _network(self, name: str, channels: int, halvings: int) -> keras.Model:
        judge = patchgan(
            name=name,
            input_channels=channels,
            filters=max(1, self.filters // 2**halvings),
            norm=self.norm,
            spectral_norm=self.regularisation.spectral_norm,
        )
        if not halvings:
            return judge
        x = image = image_input(channels)  # [B, H, W, channels]
        for halving in range(1, halvings + 1):
            x = HalveSize(name=f"halve_{halving}")(x)  # [B, H/2**halving, W/2**halving, channels]
        return keras.Model(image, judge(x), name=name)

    def _added(self, step: Step, kind: str, terms_of: Callable[[Judge], Mapping]) -> dict[str, tf.Tensor]:
        """The terms of each scale, added; their names end in the kind."""
        added = {}
        for name in self.names(kind):
            for term, value in terms_of(self._judge(step, name)).items():
                added[f"{term}_{kind}"] = added.get(f"{term}_{kind}", 0.0) + value
        return added

    def _judge(self, step: Step, name: str) -> Judge:
        def judge(pictures: tf.Tensor, role: str) -> tf.Tensor:
            seen = [step.batch["input"], pictures] if self.conditional else [pictures]
            seen = [self.regularisation.augment(x, step.seeds, role) for x in seen]  # alike
            return step.networks[name](tf.concat(seen, axis=-1), training=True)

        return judge
