"""Which sizes of pictures an export takes, and padding in its graph."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.exporting.translation import Translation
from engine.inference.size_check import SizeCheck

_LARGEST_MULTIPLE = 1024
_TRIED = 64
"""Sizes of at least so many pixels are tried for the multiple: networks may have a smallest size too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureSizes:
    """The sizes that networks take.

    Attributes:
      trained: (height, width) of pictures in training, in pixels.
      multiple: height and width must be multiples of it; None if only the size of the training will do.
      smallest: smallest height and width.
      factor: size of results / size of pictures.
    """

    trained: tuple[int, int]
    multiple: int | None
    smallest: int
    factor: Fraction

    def specs(self, features: dict[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
        """Fixes the sizes of pictures and maps if the networks take only one size."""
        return features if self.multiple is not None else self.fixed(features, batch=None)

    def fixed(self, features: dict[str, tf.TensorSpec], *, batch: int | None) -> dict[str, tf.TensorSpec]:
        """Fixes the sizes of pictures and maps to those of the training."""
        return {
            name: tf.TensorSpec(
                [batch, *(self.trained if spec.shape.rank == 4 else ()), *spec.shape[-1:]], spec.dtype, name
            )
            for name, spec in features.items()
        }

    def pad(self, images: tf.Tensor) -> tf.Tensor:
        """Pads at the bottom and on the right to a size that the networks take.

        Images are mirrored without repeating their border; along an axis that is too short for that, the
        border is repeated. It is what `engine.translate` does.

        Args:
          images: [B, H, W, C] of any size, also of one that needs no padding.
        """
        if self.multiple is None:
            return images
        for axis in (1, 2):
            size = tf.shape(images)[axis]
            padded = tf.maximum(-(-size // self.multiple) * self.multiple, self.smallest)
            index = tf.range(padded)
            mirrored = size - 1 - tf.abs(size - 1 - index)
            repeated = tf.minimum(index, size - 1)
            index = tf.where(padded - size < size, mirrored, repeated)
            images = tf.cond(
                padded > size, lambda x=images, i=index, a=axis: tf.gather(x, i, axis=a), lambda x=images: x
            )
        return images

    def crop(self, results: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Cuts off what comes from padding.

        Args:
          results: [B, H', W', C], for padded images.
          images: [B, H, W, C], before they were padded.
        """
        if self.multiple is None:
            return results
        height, width = (
            -(-tf.shape(images)[axis] * self.factor.numerator // self.factor.denominator) for axis in (1, 2)
        )
        return results[:, :height, :width]


def find_sizes(translation: Translation, example: dict[str, tf.TensorSpec]) -> PictureSizes:
    """Finds the sizes that networks take, by trying.

    Args:
      translation: of the run.
      example: shapes of the run's examples.

    Raises:
      ConfigurationError: the networks do not even take the size of the training.
    """
    height, width = (int(size) for size in translation.data.shapes[translation.source][:2])
    factor = _factor(translation, height, width)
    if factor is None:
        raise ConfigurationError(
            f"the run's networks do not translate {height}x{width} pixels, the size of the training; they "
            "cannot be exported"
        )
    check = SizeCheck(
        translation.task,
        networks=[network for network in translation.networks.values()],
        example=example,
        source=translation.source,
        trace=lambda height, width: _trace(translation, height, width) and None,
    )

    def takes(size: int) -> bool:
        try:
            check.check(size, size)
        except ConfigurationError:
            return False
        return _factor(translation, size, size) == factor

    multiple = 1
    while multiple <= _LARGEST_MULTIPLE:
        odd = 2 * (_TRIED // (2 * multiple)) + 1
        tried = max(odd, 3) * multiple  # no multiple of 2 * multiple
        if takes(tried):
            smaller = (multiple * 2**doublings for doublings in range(odd.bit_length()))
            smallest = next((size for size in smaller if size < tried and takes(size)), tried)
            return PictureSizes(trained=(height, width), multiple=multiple, smallest=smallest, factor=factor)
        multiple *= 2
    return PictureSizes(trained=(height, width), multiple=None, smallest=min(height, width), factor=factor)


def _trace(translation: Translation, height: int, width: int) -> tf.TensorShape:
    """The shape of the results for a picture of a size."""
    specs = {
        name: tf.TensorSpec(
            [1, *((height, width) if spec.shape.rank == 4 else ()), *spec.shape[-1:]], spec.dtype
        )
        for name, spec in translation.features.items()
    }
    traced = tf.function(translation.rgb, autograph=False).get_concrete_function(specs)
    return traced.structured_outputs.shape


def _factor(translation: Translation, height: int, width: int) -> Fraction | None:
    """Size of results / size of pictures; None if the networks fail on the size, or stretch it."""
    try:
        _, new_height, new_width, _ = _trace(translation, height, width)
    except (ValueError, tf.errors.InvalidArgumentError):
        return None
    factors = {Fraction(new_height, height), Fraction(new_width, width)}
    return factors.pop() if len(factors) == 1 else None
