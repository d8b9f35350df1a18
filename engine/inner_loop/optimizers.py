"""From the settings of an optimizer to its variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras

from engine.errors import ConfigurationError
from engine.inner_loop.adam_state import AdamState
from engine.inner_loop.momentum_states import LionState, RmsPropState, SgdState
from engine.inner_loop.optimizer_state import OptimizerState, VariableRates
from engine.optimizers import Adam, Lion, Optimizer, RmsProp, Sgd

_STATES: Mapping[type[Optimizer], Callable[..., OptimizerState]] = {
    Adam: AdamState,
    Sgd: SgdState,
    RmsProp: RmsPropState,
    Lion: LionState,
}


def make_optimizer(
    settings: Optimizer,
    networks: Mapping[str, keras.Model],
    rates: Mapping[str, Sequence[VariableRates]] | None = None,
) -> OptimizerState:
    """Makes the variables of an optimizer, under the strategy's scope.

    Args:
      settings: of the optimizer.
      networks: the networks it updates, by name.
      rates: see `OptimizerState`.

    Raises:
      ConfigurationError: there is no such optimizer.
    """
    if type(settings) not in _STATES:
        known = ", ".join(f"engine.optimizers.{kind.__name__}" for kind in _STATES)
        raise ConfigurationError(f"{settings!r}: is no optimizer of the engine; use one of {known}")
    return _STATES[type(settings)](settings, networks, rates)
