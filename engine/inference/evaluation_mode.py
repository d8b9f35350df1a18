"""Which weights of a run an evaluation uses, and what batch norm and dropout do in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import keras

from engine.errors import ConfigurationError
from engine.inference.norm_mode import check_norm_mode, set_norm_mode
from engine.inner_loop.train_state import TrainState
from models.networks.dropout import Dropout

AVERAGED, RAW = WEIGHTS = ("averaged", "raw")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationMode:
    """How the networks of a run are to be evaluated.

    Attributes:
      weights: "averaged", by EMA, or "raw", those in training; None: averaged where the run averages any.
      norm_mode: one of `models.networks.norms.INFERENCE_NORMS`; None is the setting of the run's task.
      dropout: whether dropout is active, as when the reference tests pix2pix.

    Raises:
      ConfigurationError: a value is unknown.
    """

    weights: str | None = None
    norm_mode: str | None = None
    dropout: bool = False

    def __post_init__(self) -> None:
        if self.weights not in (None, *WEIGHTS):
            raise ConfigurationError(f"--weights={self.weights}: unknown; use one of {', '.join(WEIGHTS)}")
        check_norm_mode(self.norm_mode)

    def apply(self, train_state: TrainState) -> ModeInUse:
        """Chooses the networks of a run, and sets their mode.

        Raises:
          ConfigurationError: the run has no averages, or has random layers that cannot be active here.
        """
        if self.weights == AVERAGED and not train_state.averaged:
            raise ConfigurationError(
                f"--weights={AVERAGED}: the run keeps no moving averages; leave it out, or train with an EMA"
            )
        raw = self.weights == RAW or not train_state.averaged
        networks = dict(train_state.networks) if raw else train_state.evaluation_networks
        usual_norm = set_norm_mode(networks.values(), None)
        norm = set_norm_mode(networks.values(), self.norm_mode)
        has_dropout = _has_dropout(networks) if self.dropout else False
        changes = {
            "raw weights": raw and bool(train_state.averaged),
            norm: norm != usual_norm,
            "dropout on": has_dropout,
        }
        dropout = "on" if has_dropout else "off (the networks have none)" if self.dropout else "off"
        return ModeInUse(
            networks=networks,
            dropout=has_dropout,
            description=f"{RAW if raw else AVERAGED} weights; {norm}; dropout {dropout}",
            suffix="".join(f", {what}" for what, differs in changes.items() if differs),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModeInUse:
    """An `EvaluationMode` of one run.

    Attributes:
      networks: by name, with the weights that were asked for.
      dropout: whether dropout is active in them.
      description: one line for tables.
      suffix: of the name of a split, for the run's files: how this differs from the evaluations in training;
        empty if it does not.
    """

    networks: Mapping[str, keras.Model]
    dropout: bool
    description: str
    suffix: str


def _has_dropout(networks: Mapping[str, keras.Model]) -> bool:
    """Whether networks have dropout.

    Raises:
      ConfigurationError: they have random layers that an evaluation cannot switch on.
    """
    layers = [layer for layer in _flattened(networks.values()) if hasattr(layer, "seed_generator")]
    for layer in layers:
        if not isinstance(layer, Dropout):
            raise ConfigurationError(
                f"--dropout: {type(layer).__name__} {layer.name!r} cannot be active outside training; build "
                "the network with models.networks.dropout.Dropout, or leave --dropout out"
            )
    return any(layer.rate for layer in layers)


def _flattened(layers: Iterable[keras.Layer]) -> Iterator[keras.Layer]:
    for layer in layers:
        if hasattr(layer, "layers"):
            yield from _flattened(layer.layers)
        else:
            yield layer
