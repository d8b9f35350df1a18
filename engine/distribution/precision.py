"""Keras's dtype policy: what networks compute in, and what their variables are kept in."""

from __future__ import annotations

import keras

from engine.errors import ConfigurationError

PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
    "float64": "float64",
}


def set_precision(precision: str) -> None:
    """Sets Keras's policy; call it before a network is built.

    "bfloat16" and "float16" compute in these and keep variables in float32; with "float16" losses are
    scaled, see `engine.inner_loop.loss_scale`.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(
            f"PRECISION = {precision!r}: not available; use one of {', '.join(PRECISIONS)}"
        )
    keras.config.set_dtype_policy(PRECISIONS[precision])
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
