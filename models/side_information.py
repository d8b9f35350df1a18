"""Side information: additional inputs of the networks, a vector or a map for each example.

A network concatenates them to its image as further channels, or applies a vector as FiLM (Perez et al., arXiv
1709.07871): a small network computes a scale and a shift for each channel of each normalised layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from data.roles import SIDE_MAP, SIDE_VECTOR
from engine.errors import ConfigurationError
from models.networks.conditioning import SideShapes

_MODES = {"vector": ("none", "concatenate", "film"), "map": ("none", "concatenate")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideInformation:
    """Settings of the additional inputs; none by default.

    Attributes:
      vector: "none"; "concatenate", which repeats the vector over the image as further channels; or "film",
        which scales and shifts the channels after each norm, and initially changes nothing.
      map: "none", or "concatenate", which adds the map's channels to those of the image; a map of classes has
        one for each class.
      film_units: units of the hidden layer that all FiLM layers of one network share.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    vector: str = "none"
    map: str = "none"
    film_units: int = 64

    def __post_init__(self) -> None:
        for name, modes in _MODES.items():
            if getattr(self, name) not in modes:
                raise ConfigurationError(
                    f"SideInformation.{name} = {getattr(self, name)!r}: unknown; use one of "
                    f"{', '.join(modes)}"
                )
        if self.film_units < 1:
            raise ConfigurationError(
                f"SideInformation.film_units = {self.film_units}: must be at least 1; 64 is the default"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The features that the networks take beside the image, in the order of their inputs."""
        modes = {SIDE_VECTOR: self.vector, SIDE_MAP: self.map}
        return tuple(name for name, mode in modes.items() if mode != "none")

    def shapes(self, example: Mapping[str, tf.TensorSpec]) -> SideShapes:
        """Returns the sizes that a network is built for.

        Args:
          example: shapes of the features of one example, without a batch axis.

        Raises:
          ConfigurationError: the data set has no such feature.
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

    def network_inputs(
        self,
        images: tf.Tensor,
        batch: Mapping[str, tf.Tensor],
        *,
        change: Callable[[tf.Tensor], tf.Tensor] = lambda maps: maps,
    ) -> tf.Tensor | list[tf.Tensor]:
        """Returns the inputs with which to call a network.

        Args:
          images: [B, H, W, C].
          batch: features by name, each [B, ...].
          change: for maps, what was done to the images, such as augmentation, so that both still match.

        Returns:
          The images, or a list of the images and the features in `names`.
        """
        changes = {SIDE_VECTOR: lambda vectors: vectors, SIDE_MAP: change}
        others = [changes[name](batch[name]) for name in self.names]
        return [images, *others] if others else images
