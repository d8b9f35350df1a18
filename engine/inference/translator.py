"""A network that translates pictures, whatever it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction

import tensorflow as tf

from engine.inference.batch_function import BatchFunction
from engine.pictures.role_format import RoleFormat
from engine.pictures.side_inputs import SideMaps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translator:
    """A network that translates pictures.

    Attributes:
      description: one line for the console.
      input: how it takes pictures.
      output: how it makes them.
      check_size: raises ConfigurationError for a height and width (pixels) that it cannot take.
      translate: maps pictures [B, H, W, C] in [-1, 1] (RGB), side maps like them or None, codes
        [B, latent_size] or None, and positions int32 [B] or None, to the output of the network, in its own
        colour space: [B, H', W', C] in [-1, 1].
      compiled: the function behind `translate`, which knows its replicas and its memory.
      trace_size: raises ConfigurationError for a size that the network fails on; takes a second. None if
        `check_size` knows all of them.
      factor: sizes of outputs / sizes of pictures.
      has_dropout: whether dropout is active, whose masks the positions choose.
      to_rgb: maps the output to [B, H', W', C] from -1 to 1, 3 channels being RGB.
      side_maps: the map of each picture; None if the network takes none.
      latent_size: numbers of a code; 0 if the network takes none.
      encode: maps pictures such as those that the network makes, [B, H, W, C] in [-1, 1] (RGB), to codes.
    """

    description: str
    input: RoleFormat
    output: RoleFormat
    check_size: Callable[[int, int], None]
    translate: Callable[..., tf.Tensor]
    compiled: BatchFunction
    trace_size: Callable[[int, int], None] | None = None
    factor: Fraction = Fraction(1)
    has_dropout: bool = False
    to_rgb: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    side_maps: SideMaps | None = None
    latent_size: int = 0
    encode: Callable[[tf.Tensor], tf.Tensor] | None = None
