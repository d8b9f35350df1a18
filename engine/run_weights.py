"""Initial weights of a new run from a checkpoint of another run, as a gin setting; see gin/from_run.gin."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import keras

from engine.errors import ConfigurationError
from engine.inference.evaluation_mode import WEIGHTS
from engine.inference.stored_weights import stored_weights
from models.weight_transfer import WeightTransfer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunWeights(WeightTransfer):
    """Initial weights of a new run from a checkpoint of another one, whose data set is not needed.

    A table says what became of each weight. For the other settings see
    `models.weight_transfer.WeightTransfer`.

    Attributes:
      workdir: directory of the other run.
      checkpoint: "latest", "best", or a position in examples.
      networks: network of the new task -> network of the other run, such as {"generator": "generator"}; None
        takes all that both have.
      weights: "averaged", by EMA, or "raw"; None: averaged where the other run averages any.

    Raises:
      ConfigurationError: a setting is unknown.
    """

    workdir: str = ""
    checkpoint: str = "latest"
    networks: Mapping[str, str] | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in (None, *WEIGHTS):
            raise ConfigurationError(
                f"RunWeights.weights = {self.weights!r}: unknown; use one of {', '.join(WEIGHTS)}, or None"
            )

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Sets the weights of the networks, or of none if there is an error.

        Args:
          networks: networks of the task by name; changed in place.

        Raises:
          ConfigurationError: the run cannot be used, or its weights do not fit.
          data.errors.DataError: the other run has not recorded its data set, which is missing.
        """
        if not self.workdir:
            raise ConfigurationError(
                "RunWeights.workdir: is not set; name the run to start from, as in "
                "run_weights.RunWeights.workdir = 'runs/NAME'"
            )
        where, stored = stored_weights(
            os.path.expanduser(self.workdir), checkpoint=self.checkpoint, weights=self.weights
        )
        pairs = self.networks
        if pairs is None:
            pairs = {name: name for name in networks if name in stored}
        for ours, theirs in pairs.items():
            for name, known, whose in ((ours, networks, "the task"), (theirs, stored, where)):
                if name not in known:
                    raise ConfigurationError(
                        f"RunWeights.networks: {name!r} is no network of {whose}; use one of "
                        f"{', '.join(known)}"
                    )
        if not pairs:
            raise ConfigurationError(
                f"RunWeights: {where} has no network of the same name as the task ({', '.join(stored)}); set "
                f"networks, such as {{'{next(iter(networks))}': '{next(iter(stored))}'}}"
            )
        plans = [
            self.plan(networks[ours], stored[theirs], where=f"{theirs} of {where}")
            for ours, theirs in pairs.items()
        ]
        for plan in plans:
            plan.apply()
            print(plan.table())
