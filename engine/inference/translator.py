"""A network that translates pictures, whatever it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from engine.inference.role_format import RoleFormat
from engine.inference.side_inputs import SideMaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translator:
    """A network that translates pictures.

    Attributes:
      description: one line for the console.
      input: how it takes pictures.
      output: how it makes them.
      check_size: raises ConfigurationError for a height and width (pixels) that it cannot take.
      translate: maps pictures [B, H, W, C] in [-1, 1] (RGB), side maps like them or None, and codes
        [B, latent_size] or None, to the output of the network, in its own colour space: [B, H', W', C] in
        [-1, 1].
      to_rgb: maps the output to [B, H', W', C] from -1 to 1, 3 channels being RGB.
      side_maps: the map of each picture; None if the network takes none.
      latent_size: numbers of a code; 0 if the network takes none.
      encode: maps pictures such as those that the network makes, [B, H, W, C] in [-1, 1] (RGB), to codes.
    """

    description: str
    input: RoleFormat
    output: RoleFormat
    check_size: Callable[[int, int], None]
    translate: Callable[[tf.Tensor, tf.Tensor | None, tf.Tensor | None], tf.Tensor]
    to_rgb: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    side_maps: SideMaps | None = None
    latent_size: int = 0
    encode: Callable[[tf.Tensor], tf.Tensor] | None = None
