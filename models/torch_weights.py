"""Initial weights from files of the PyTorch reference, as a gin setting."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import keras
import numpy as np

from engine.errors import ConfigurationError
from models.pytorch.state_dict_file import read_state_dict
from models.pytorch.weights import fitting_weights, held_weights, save_reference, set_weights
from models.weight_transfer import Plan, WeightTransfer

__all__ = ["TorchWeights", "save_reference"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchWeights(WeightTransfer):
    """Initial weights of a new run from files of the reference (`*_net_G.pth`).

    Networks without a file keep their random weights. With `partial` or `only`, see
    `models.weight_transfer.WeightTransfer`, a table says what became of each weight.

    Attributes:
      files: network of the task -> path, such as {"generator": "facades_net_G.pth"}, in which "~" is the home
        directory; None has no files.

    Raises:
      ConfigurationError: `files` is no such mapping.
    """

    files: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(isinstance(text, str) for item in (self.files or {}).items() for text in item):
            raise ConfigurationError(
                f"INITIALISE_FROM = {dict(self.files or {})}: must map names of networks to files; set it, "
                'for example, to {"generator": "facades_net_G.pth"}'
            )

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Sets the weights of all named networks, or of none if there is an error.

        Args:
          networks: networks of the task by name; changed in place.

        Raises:
          ConfigurationError: the task has no such network, or a file cannot be read or does not fit.
        """
        whole: list[tuple[keras.Model, Mapping[str, np.ndarray]]] = []
        plans: list[Plan] = []
        for name, path in (self.files or {}).items():
            if name not in networks:
                raise ConfigurationError(
                    f"INITIALISE_FROM: {name!r} is no network of the task; use one of {', '.join(networks)}"
                )
            state = read_state_dict(os.path.expanduser(path))
            if self.takes_all:
                whole.append((networks[name], fitting_weights(networks[name], state, where=path)))
            else:
                plans.append(
                    self.plan(networks[name], held_weights(networks[name], state, where=path), where=path)
                )
        for network, weights in whole:
            set_weights(network, weights)
        for plan in plans:
            plan.apply()
            print(plan.table())
