"""Side information: numbers or a map that networks get with each picture, concatenated or as FiLM.

FiLM (Perez et al., arXiv 1709.07871) scales and shifts every channel of every normalised layer by what a
small network makes of the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from data.roles import SIDE_MAP, SIDE_VECTOR
from engine.errors import ConfigurationError
from models.networks.conditioning import SideShapes

_WAYS = {"vector": ("none", "concatenate", "film"), "map": ("none", "concatenate")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideInformation:
    """Settings: what the networks of a task get beside their pictures; nothing by default.

    Args:
      vector: "none"; "concatenate", repeated over the picture as further channels; or "film", which scales
        and shifts the channels after every norm, and at first changes nothing.
      map: "none", or "concatenate", as further channels of the picture.
      film_units: units of the hidden layer that FiLM's layers of one network share.

    Raises:
      ConfigurationError: a way that there is not.
    """

    vector: str = "none"
    map: str = "none"
    film_units: int = 64

    def __post_init__(self):
        for name, ways in _WAYS.items():
            if getattr(self, name) not in ways:
                raise ConfigurationError(
                    f"SideInformation.{name} = {getattr(self, name)!r}: unknown; use one of {', '.join(ways)}"
                )
        if self.film_units < 1:
            raise ConfigurationError(f"SideInformation.film_units = {self.film_units}: must be at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        """What the networks take from a batch beside their pictures, in the order of their inputs."""
        ways = {SIDE_VECTOR: self.vector, SIDE_MAP: self.map}
        return tuple(name for name, way in ways.items() if way != "none")

    def shapes(self, example: Mapping[str, tf.TensorSpec]) -> SideShapes:
        """What a network is to be built for, given one example's shapes.

        Raises:
          ConfigurationError: the data set does not have it.
        """
        for name in self.names:
            if name not in example:
                setting = name.removeprefix("side_")
                flags = "--side_vector or --side_classes" if name == SIDE_VECTOR else "--side_map"
                raise ConfigurationError(
                    f"SideInformation.{setting} = {getattr(self, setting)!r}: the data set has no {name!r}; "
                    f"prepare it with {flags}, or set 'none'"
                )
        return SideShapes(
            tiled=example[SIDE_VECTOR].shape[0] if self.vector == "concatenate" else 0,
            modulating=example[SIDE_VECTOR].shape[0] if self.vector == "film" else 0,
            film_units=self.film_units,
            map_channels=example[SIDE_MAP].shape[-1] if self.map == "concatenate" else 0,
        )

    def beside(
        self,
        pictures: tf.Tensor,
        batch: Mapping[str, tf.Tensor],
        *,
        change: Callable[[tf.Tensor], tf.Tensor] = lambda maps: maps,
    ) -> tf.Tensor | list[tf.Tensor]:
        """What a network is called with: the pictures alone, or a list of them and what stands beside.

        Args:
          change: what has been done to the pictures, for maps to stay in their places.
        """
        ways = {SIDE_VECTOR: lambda vectors: vectors, SIDE_MAP: change}
        others = [ways[name](batch[name]) for name in self.names]
        return [pictures, *others] if others else pictures
