"""What batch norm normalises with when a trained network translates."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from engine.errors import ConfigurationError
from models.networks.norms import INFERENCE_NORMS, MOVING_STATISTICS, BatchNorm


def check_norm_mode(norm_mode: str | None) -> None:
    """Raises ConfigurationError unless it is None or one of `INFERENCE_NORMS`."""
    if norm_mode not in (None, *INFERENCE_NORMS):
        raise ConfigurationError(
            f"--norm_mode={norm_mode}: unknown; choose one of {', '.join(INFERENCE_NORMS)}"
        )


def set_norm_mode(layers: Iterable[keras.Layer], norm_mode: str | None) -> str:
    """Sets the mode of all batch norms, nested networks included.

    Those of Keras's networks compute with moving statistics always.

    Args:
      layers: networks.
      norm_mode: one of `INFERENCE_NORMS`; None leaves each as it is.

    Returns:
      What they use now, for the console.
    """
    modes_in_use = set()
    for layer in _batch_norms(layers):
        if isinstance(layer, BatchNorm):
            layer.inference_norm = norm_mode or layer.inference_norm
            modes_in_use.add(layer.inference_norm)
        else:
            modes_in_use.add(MOVING_STATISTICS)
    modes = " and ".join(sorted(modes_in_use))
    return f"batch norm with {modes}" if modes else "no batch norm (so no norm mode)"


def _batch_norms(layers: Iterable[keras.Layer]) -> list[keras.layers.BatchNormalization]:
    found: list[keras.layers.BatchNormalization] = []
    for layer in layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        found += [layer] if is_norm else _batch_norms(getattr(layer, "layers", ()))
    return found
