"""What PatchNCE compares: patches of a generator's own features at drawn places, and their projector."""

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

    Args:
      layers: of the generator, whose activations are compared. By default the published ones, which are
        numbers 0, 4, 8, 12 and 16 of the reference's list: the padded picture, both downsampling
        convolutions before their norm, the first and the fifth residual block.
      patches: compared in each layer, at most.
      width: channels of the projector.
      temperature: see `models.losses.patch_nce`.
    """

    layers: tuple[str, ...] = ("first_pad", "down_1_conv", "down_2_conv", "block_1_sum", "block_5_sum")
    patches: int = 256
    width: int = 256
    temperature: float = 0.07

    def __post_init__(self):
        if not self.layers or self.patches < 2 or self.width < 1 or self.temperature <= 0:
            raise ConfigurationError(
                f"PatchNce: layers = {self.layers} must name a layer, patches = {self.patches} must be at "
                f"least 2, width = {self.width} at least 1, temperature = {self.temperature} above 0"
            )

    def projector(self, generator: keras.Model) -> keras.Model:
        """A perceptron of two layers for each of the `layers`: lists of [B, P, C] -> lists of [B, P, width].

        What it makes has any length, since the loss normalises it.

        Raises:
          ConfigurationError: the generator has no such layer.
        """
        # Small kernels and vectors scaled to length 1 have gradients of 1e6 and more: too large for float16.
        dtype = variable_dtype()
        patches, projected = [], []
        for index, activation in enumerate(with_activations(generator, self.layers).outputs):
            x = keras.Input((None, activation.shape[-1]), dtype=dtype, name=f"patches_{index}")
            patches.append(x)
            x = keras.layers.Dense(self.width, "relu", dtype=dtype, name=f"hidden_{index}")(
                x
            )  # [B, P, width]
            projected.append(keras.layers.Dense(self.width, dtype=dtype, name=f"projected_{index}")(x))
        return keras.Model(patches, projected, name="projector")

    def __call__(
        self,
        generator: keras.Model,
        projector: keras.Model,
        source: tf.Tensor,
        made: tf.Tensor,
        *,
        seeds: Seeds,
        name: str,
        align: Callable[[tf.Tensor], tf.Tensor] = lambda features: features,
    ) -> tf.Tensor:
        """How badly patches made [B, H, W, C] are told apart by those of their source; the mean over layers.

        Args:
          name: of the draws of places, each example's own.
          align: what is done to the features [B, h, w, c] of what was made before they are compared.

        Returns:
          [B]; no gradient through the features of the source.
        """
        encode = with_activations(generator, self.layers)
        # Keras returns the only one of a list bare.
        keys = tf.nest.flatten(encode(source, training=True))
        queries = [align(features) for features in tf.nest.flatten(encode(made, training=True))]
        places = [
            draw_places(seeds, f"{name}/{layer}", of=math.prod(key.shape[1:3]), count=self.patches)
            for layer, key in zip(self.layers, keys, strict=True)
        ]
        keys, queries = (
            tf.nest.flatten(
                projector([take_patches(x, where) for x, where in zip(features, places, strict=True)])
            )
            for features in (keys, queries)
        )
        losses = [patch_nce(q, k, temperature=self.temperature) for q, k in zip(queries, keys, strict=True)]
        return tf.add_n(losses) / len(losses)


def draw_places(seeds: Seeds, name: str, *, of: int, count: int) -> tf.Tensor:
    """Distinct places for each example, [B, min(count, of)] int32 in [0, of), each as likely.

    Those of one name in one step are the same.
    """
    scores = seeds.uniform(name, (of,))  # [B, of]
    return tf.math.top_k(scores, min(count, of)).indices


def take_patches(features: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Vectors of a feature map [B, H, W, C] at places [B, P], counted row by row: [B, P, C]."""
    height, width, channels = features.shape[1:]
    flat = tf.reshape(features, [-1, height * width, channels])
    return tf.gather(flat, places, axis=1, batch_dims=1)
