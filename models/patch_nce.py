"""PatchNCE between a generator's input and output: samples patches of its own features and compares them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.task import Seeds
from models.losses import patch_nce, with_activations
from models.networks.layers import variable_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchNce:
    """Settings of PatchNCE between a generator's input and output (Park et al., arXiv 2007.15651).

    Attributes:
      layers: layers of the generator whose activations are compared. The default are the published ones,
        numbers 0, 4, 8, 12 and 16 in the reference: the padded image, both downsampling convolutions before
        their norm, the first and the fifth residual block.
      patches: largest number of patches in each layer.
      width: channels of the projector.
      temperature: see `models.losses.patch_nce`.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    layers: tuple[str, ...] = ("first_pad", "down_1_conv", "down_2_conv", "block_1_sum", "block_5_sum")
    patches: int = 256
    width: int = 256
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if not self.layers or self.patches < 2 or self.width < 1 or self.temperature <= 0:
            raise ConfigurationError(
                f"PatchNce: layers = {self.layers} must name a layer, patches = {self.patches} must be at "
                f"least 2, width = {self.width} at least 1, temperature = {self.temperature} above 0; "
                "correct them"
            )

    def projector(self, generator: keras.Model) -> keras.Model:
        """Builds the projector: a perceptron with one hidden layer for each of the `layers`.

        Args:
          generator: its layers determine the projector's inputs.

        Returns:
          A model from a list of patches [B, P, C] to a list of vectors [B, P, width]. It does not normalise
          them: the loss does.

        Raises:
          ConfigurationError: the generator has no such layer.
        """
        # Small kernels and vectors scaled to length 1 have gradients of 1e6 and more: too large for float16.
        dtype = variable_dtype()
        patches, projected = [], []
        for index, activation in enumerate(with_activations(generator, self.layers).outputs):
            x = keras.Input((None, activation.shape[-1]), dtype=dtype, name=f"patches_{index}")
            patches.append(x)
            hidden = keras.layers.Dense(self.width, "relu", dtype=dtype, name=f"hidden_{index}")
            project = keras.layers.Dense(self.width, dtype=dtype, name=f"projected_{index}")
            projected.append(project(hidden(x)))  # [B, P, width]
        return keras.Model(patches, projected, name="projector")

    def __call__(
        self,
        generator: keras.Model,
        projector: keras.Model,
        source: tf.Tensor,
        output: tf.Tensor,
        *,
        seeds: Seeds,
        name: str,
        align: Callable[[tf.Tensor], tf.Tensor] = lambda features: features,
    ) -> tf.Tensor:
        """Returns how badly patches of the output are matched with those of the source at the same positions.

        Args:
          generator: its layers compute the features of both.
          projector: the model of `projector`.
          source: the generator's inputs [B, H, W, C].
          output: the generator's outputs for them, of the same shape.
          seeds: those of the step.
          name: names the random positions, which differ between examples.
          align: applied to the output's features [B, h, w, c] before the comparison, such as a flip back.

        Returns:
          The mean over layers, [B]; without gradient through the features of the source.
        """
        encode = with_activations(generator, self.layers)
        # Keras returns the output of a model with one output without a list.
        keys = tf.nest.flatten(encode(source, training=True))
        queries = [align(features) for features in tf.nest.flatten(encode(output, training=True))]
        positions = [
            sample_positions(seeds, f"{name}/{layer}", of=math.prod(key.shape[1:3]), count=self.patches)
            for layer, key in zip(self.layers, keys, strict=True)
        ]
        keys, queries = (
            tf.nest.flatten(
                projector([gather_patches(*pair) for pair in zip(features, positions, strict=True)])
            )
            for features in (keys, queries)
        )
        losses = [patch_nce(q, k, temperature=self.temperature) for q, k in zip(queries, keys, strict=True)]
        return tf.add_n(losses) / len(losses)


def sample_positions(seeds: Seeds, name: str, *, of: int, count: int) -> tf.Tensor:
    """Samples positions for each example, uniformly and without replacement.

    Args:
      seeds: those of the step.
      name: names the random numbers; the same name in the same step gets the same positions.
      of: number of positions.
      count: how many of them to sample; all if there are fewer.

    Returns:
      int32 [B, min(count, of)] in [0, of).
    """
    scores = seeds.uniform(name, (of,))  # [B, of]
    return tf.math.top_k(scores, min(count, of)).indices


def gather_patches(features: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Gathers vectors of a feature map.

    Args:
      features: [B, H, W, C].
      positions: [B, P], counted row by row.

    Returns:
      [B, P, C].
    """
    height, width, channels = features.shape[1:]
    flat = tf.reshape(features, [-1, height * width, channels])
    return tf.gather(flat, positions, axis=1, batch_dims=1)
