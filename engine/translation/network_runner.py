"""Runs a network on pictures of any size: padded to what it takes, and in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from engine.inference.translator import Translator
from engine.pictures.picture_input import Picture
from engine.translation.limits import Limits
from engine.translation.size_fit import SizeFit, pad

_UNKNOWN_BYTES_PER_PIXEL = 1024.0  # of a network whose graph cannot be looked into, as of edsr_16blocks
_WORKSPACE = 2.0  # memory with that of the convolutions themselves / that of tensors; 1.1 to 2.9 on a CPU
_ESTIMATED_ON = (
    128  # pixels, high and wide, of the picture on which memory is estimated if the first is large
)


class MemoryExhaustedError(ConfigurationError):
    """The memory of a device was not enough."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NetworkInput:
    """What a network sees of a picture.

    Attributes:
      picture: to translate.
      side_map: its map, of the same size; None if the network takes none.
      position: number of the picture, which chooses the masks of dropout.
    """

    picture: Picture
    side_map: Picture | None = None
    position: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.picture.pixels.shape[:2]
        return height, width

    def part(self, rows: slice, columns: slice) -> NetworkInput:
        """A part of the picture and of its map."""
        return self._changed(lambda pixels: pixels[rows, columns])

    def padded(self, height: int, width: int) -> NetworkInput:
        """The picture and its map, padded; see `size_fit.pad`."""
        return self._changed(lambda pixels: pad(pixels, height, width))

    def _changed(self, change: Callable[[np.ndarray], np.ndarray]) -> NetworkInput:
        picture, side_map = self.picture, self.side_map
        if side_map is not None:
            side_map = dataclasses.replace(side_map, pixels=change(side_map.pixels))
        picture = dataclasses.replace(picture, pixels=change(picture.pixels))
        return dataclasses.replace(self, picture=picture, side_map=side_map)


class NetworkRunner:
    """Runs a network on whole pictures of any size.

    Args:
      translator: the network.
      limits: how much is computed at once.
      with_codes: whether latent codes will be given.

    Attributes:
      translator: as given.
      limits: likewise.
      sizes: that the network takes.
    """

    def __init__(self, translator: Translator, limits: Limits, *, with_codes: bool = False):
        self.translator, self.limits = translator, limits
        self._latent_size = translator.latent_size if with_codes else 0
        self.sizes = SizeFit(translator.check_size, translator.trace_size)
        self._bytes_per_pixel: float | None = None  # 0 if it cannot be known

    def batch(self, height: int, width: int) -> int:
        """How many pictures of a size that the network takes are translated at once, by all replicas."""
        fitting = int(self.pixels_at_once(height, width) / (height * width))
        return max(1, min(self.limits.batch, fitting)) * self.translator.compiled.replicas

    def pixels_at_once(self, height: int, width: int) -> float:
        """For how many pixels the memory of a replica suffices, about.

        Args:
          height: of pictures to be translated; a size that the network takes.
          width: likewise.
        """
        if self._bytes_per_pixel is None:
            if height * width > 4 * _ESTIMATED_ON**2:
                height, width = self.sizes.padded(_ESTIMATED_ON, _ESTIMATED_ON)
            self._bytes_per_pixel = self._estimate(height, width)
        bytes_per_pixel = self._bytes_per_pixel or _UNKNOWN_BYTES_PER_PIXEL
        return self.limits.memory_bytes / (_WORKSPACE * bytes_per_pixel)

    def _estimate(self, height: int, width: int) -> float:
        maps, latent = self.translator.side_maps, self._latent_size
        return (
            self.translator.compiled.bytes_per_pixel(
                tf.TensorSpec([None, height, width, self.translator.input.channels], tf.float32),
                maps and tf.TensorSpec([None, height, width, maps.format.channels], tf.float32),
                tf.TensorSpec([None, latent], tf.float32) if latent else None,
                tf.TensorSpec([None], tf.int32) if self.translator.has_dropout else None,
            )
            or 0.0
        )

    def run(self, inputs: Sequence[NetworkInput], code: tf.Tensor | None) -> list[np.ndarray]:
        """Translates pictures of which the network takes the same size, whole.

        Args:
          inputs: the pictures, all of one dtype and value range.
          code: [1, latent_size], for all of them; None for the task's default.

        Returns:
          The outputs of the network, float32 [f H, f W, C] for a picture of H x W.

        Raises:
          ConfigurationError: the network does not take their size, or they do not fit into the memory. Of one
            picture alone, it takes no larger size either.
        """
        size = self.sizes.padded(*inputs[0].size)
        try:
            outputs = self.translate([one.padded(*size) for one in inputs], code)
            self._check_factor(size, outputs)
        except ConfigurationError as error:
            if len(inputs) > 1 or isinstance(error, MemoryExhaustedError):
                raise
            self.sizes.refuse(*size, error)
            return self.run(inputs, code)
        factor = self.translator.factor
        sizes = [[round(length * factor) for length in one.size] for one in inputs]
        return [output[:height, :width] for output, (height, width) in zip(outputs, sizes, strict=True)]

    def translate(self, inputs: Sequence[NetworkInput], code: tf.Tensor | None) -> np.ndarray:
        """Translates pictures of one size that the network takes.

        Args:
          inputs: the pictures, all of one dtype and value range.
          code: as of `run`.

        Returns:
          float32 [B, f H, f W, C].

        Raises:
          ConfigurationError: the network does not take their size after all.
        """
        maps = [one.side_map for one in inputs if one.side_map is not None]
        return self.translate_signed(
            _signed([one.picture for one in inputs]),
            _signed(maps) if maps else None,
            code,
            [one.position for one in inputs],
        )

    def translate_signed(
        self, pictures: tf.Tensor, maps: tf.Tensor | None, code: tf.Tensor | None, positions: Sequence[int]
    ) -> np.ndarray:
        """As `translate`, of pictures and maps float32 [B, H, W, C] in [-1, 1]."""
        try:
            output = self.translator.translate(
                pictures,
                maps,
                None if code is None else tf.repeat(code, len(positions), axis=0),
                tf.constant(positions, tf.int32) if self.translator.has_dropout else None,
            )
            return tf.cast(output, tf.float32).numpy()
        except tf.errors.ResourceExhaustedError as error:
            height, width = pictures.shape[1:3]
            raise MemoryExhaustedError(
                f"{width}x{height} pixels do not fit into the memory; lower "
                f"--memory_gib={self.limits.memory_gib:g}, or set a smaller --tile"
            ) from error

    def _check_factor(self, size: tuple[int, int], outputs: np.ndarray) -> None:
        """Raises ConfigurationError if sizes of outputs do not follow from those of pictures."""
        expected = tuple(length * self.translator.factor for length in size)
        if outputs.shape[1:3] != expected:
            raise ConfigurationError(
                f"the network makes {outputs.shape[1]}x{outputs.shape[2]} of {size[0]}x{size[1]} pixels "
                "(height x width), so outputs do not lie on inputs; resize the picture"
            )


def _signed(images: Sequence[Picture]) -> tf.Tensor:
    """Pictures of one size, dtype and value range as float32 [B, H, W, C] in [-1, 1]."""
    low, high = images[0].value_range
    return imaging.range_to_signed(np.stack([image.pixels for image in images]), low=low, high=high)
