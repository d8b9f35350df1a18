"""Weights of the reference's networks into ours and back, complete or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from engine.errors import ConfigurationError
from models.pytorch.state_dict_file import read_state_dict
from models.pytorch.weights import fitting_weights, save_reference, set_weights

__all__ = ["TorchWeights", "save_reference"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchWeights:
    """Weights that a new run starts from: files of the reference (`*_net_G.pth`) for networks of the task.

    Networks that are not named start from chance.

    Args:
      files: network of the task -> path, such as {"generator": "facades_net_G.pth"}.

    Raises:
      ConfigurationError: `files` is no such mapping.
    """

    files: Mapping[str, str] | None = None

    def __post_init__(self):
        if not all(isinstance(text, str) for item in (self.files or {}).items() for text in item):
            raise ConfigurationError(
                f"INITIALISE_FROM = {dict(self.files)}: takes names of networks and files, such as "
                '{"generator": "facades_net_G.pth"}'
            )

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Sets the weights; raises ConfigurationError before any if one of the files does not fit."""
        found = []
        for name, path in (self.files or {}).items():
            if name not in networks:
                raise ConfigurationError(
                    f"INITIALISE_FROM: {name!r} is no network of the task; it has {', '.join(networks)}"
                )
            found.append((networks[name], fitting_weights(networks[name], read_state_dict(path), where=path)))
        for network, weights in found:
            set_weights(network, weights)
