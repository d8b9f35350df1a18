"""Patch discriminators at several scales: the first sees images at full size, the next at half of it, ...

Source: Wang et al., arXiv 1711.11585, section 3.2; as in the authors' code of BicycleGAN
(junyanz/BicycleGAN), each scale has half the filters of the previous one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from data.roles import INPUT, TARGET
from engine.errors import ConfigurationError, check_at_least
from engine.task import Step
from models.networks.layers import image_input
from models.networks.patchgan import check_patchgan_size, patchgan
from models.regularisation import Discriminator, Regularisation


@keras.saving.register_keras_serializable(package="gantry")
class HalveSize(keras.layers.Layer):
    """Mean of 3x3 pixels around every second pixel: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Like PyTorch's `AvgPool2d(3, stride=2, padding=1, count_include_pad=False)`. Keras's padding "same" gives
    the same sizes, but shifts the windows by one pixel where a size is even.
    """

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The shape of the output, [B, ceil(H / 2), ceil(W / 2), C]."""
        batch, height, width, channels = input_shape
        return (batch, height and -(-height // 2), width and -(-width // 2), channels)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Halves the size of images."""

        def pool(y: tf.Tensor) -> tf.Tensor:
            y = tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]])
            return tf.nn.avg_pool2d(y, 3, 2, "VALID")

        return pool(x) / pool(tf.ones_like(x[:1, :, :, :1]))  # does not count the padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledDiscriminators:
    """Settings of a set of discriminators, one network per scale; their losses are added.

    Attributes:
      scales: number of scales.
      filters: channels of the first layer at full size.
      conditional: whether they also see the input, as in pix2pix.
      norm: of each; see `models.pix2pix.Pix2Pix`.
      gan_loss: of each; see `models.pix2pix.Pix2Pix`.
      regularisation: of each.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    scales: int = 2
    filters: int = 64
    conditional: bool = False
    norm: str = "instance"
    gan_loss: str = "lsgan"
    regularisation: Regularisation = dataclasses.field(default_factory=Regularisation)

    def __post_init__(self) -> None:
        self.regularisation.check(gan_loss=self.gan_loss, norm=self.norm)
        check_at_least(1, of="ScaledDiscriminators", scales=self.scales, filters=self.filters)

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of the networks, from full size down.

        Args:
          kind: name of the set.
        """
        return tuple(f"{kind}_discriminator_{scale}" for scale in range(1, self.scales + 1))

    def build(
        self, kind: str, input_shape: Sequence[int], target_shape: Sequence[int]
    ) -> dict[str, keras.Model]:
        """Builds the networks of a set.

        Args:
          kind: name of the set.
          input_shape: [H, W, C] of the inputs.
          target_shape: [H, W, C] of the targets.

        Returns:
          The networks by name.

        Raises:
          ConfigurationError: images are too small for the coarsest scale.
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

    def generator_terms(self, step: Step, kind: str, fake: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the generator minimises.

        Args:
          step: the current step.
          kind: name of the set.
          fake: the generator's outputs, [B, H, W, C].

        Returns:
          "gan_<kind>", [B].
        """

        def terms(discriminator: Discriminator) -> dict[str, tf.Tensor]:
            loss = self.regularisation.generator_loss
            real = step.batch["target"]
            return {"gan": loss(discriminator, real=real, fake=fake, gan_loss=self.gan_loss)}

        return self._sum_over_scales(step, kind, terms)

    def discriminator_terms(self, step: Step, kind: str, fake: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the discriminators minimise; the targets are the real images.

        Args:
          step: the current step.
          kind: name of the set.
          fake: the generator's outputs, [B, H, W, C].

        Returns:
          The terms by name, each [B]; the names end in the kind.
        """

        def terms(discriminator: Discriminator) -> dict[str, tf.Tensor]:
            return self.regularisation.discriminator_terms(
                discriminator,
                real=step.batch["target"],
                fake=fake,
                gan_loss=self.gan_loss,
                seeds=step.seeds,
            )

        return self._sum_over_scales(step, kind, terms)

    def r1_terms(self, step: Step, kind: str) -> dict[str, tf.Tensor]:
        """Returns the loss of the phase from `Regularisation.phases`.

        Args:
          step: the current step.
          kind: name of the set.

        Returns:
          "penalty_<kind>", [B].
        """

        def terms(discriminator: Discriminator) -> dict[str, tf.Tensor]:
            return self.regularisation.r1_terms(discriminator, real=step.batch["target"], seeds=step.seeds)

        return self._sum_over_scales(step, kind, terms)

    def _network(self, name: str, channels: int, halvings: int) -> keras.Model:
        discriminator = patchgan(
            name=name,
            input_channels=channels,
            filters=max(1, self.filters // 2**halvings),
            norm=self.norm,
            spectral_norm=self.regularisation.spectral_norm,
        )
        if not halvings:
            return discriminator
        x = image = image_input(channels)  # [B, H, W, channels]
        for halving in range(1, halvings + 1):
            x = HalveSize(name=f"halve_{halving}")(x)  # [B, H/2**halving, W/2**halving, channels]
        return keras.Model(image, discriminator(x), name=name)

    def _sum_over_scales(
        self, step: Step, kind: str, terms_of: Callable[[Discriminator], Mapping[str, tf.Tensor]]
    ) -> dict[str, tf.Tensor]:
        """The sum of each term over the scales; the names of the terms get the kind as a suffix."""
        sums: dict[str, tf.Tensor] = {}
        for name in self.names(kind):
            for term, value in terms_of(self._discriminator(step, name)).items():
                sums[f"{term}_{kind}"] = sums.get(f"{term}_{kind}", 0.0) + value
        return sums

    def _discriminator(self, step: Step, name: str) -> Discriminator:
        def discriminator(images: tf.Tensor, role: str) -> tf.Tensor:
            shown = {INPUT: step.batch["input"]} if self.conditional else {}
            shown |= {TARGET: images}
            augmented = [  # in the same way
                self.regularisation.augment(x, step.seeds, role, are_labels=feature in step.label_roles)
                for feature, x in shown.items()
            ]
            return step.networks[name](tf.concat(augmented, axis=-1), training=True)

        return discriminator
