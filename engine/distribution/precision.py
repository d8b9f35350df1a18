"""Keras's settings: the dtypes of networks and their variables, and the order of the axes of images."""

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
    """Sets Keras's dtype policy and channels-last images. Call it before a network is built.

    Args:
      precision: one of `PRECISIONS`. "bfloat16" and "float16" are mixed precision, with float32 variables;
        with "float16" losses are scaled, see `engine.inner_loop.loss_scale`.

    Raises:
      ConfigurationError: there is no such precision, or Keras does not use TensorFlow.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"PRECISION = {precision!r}: unknown; use one of {', '.join(PRECISIONS)}")
    if keras.config.backend() != "tensorflow":
        raise ConfigurationError(
            f"Keras was imported with the backend {keras.config.backend()!r}; start Python again and set "
            'KERAS_BACKEND to "tensorflow" before it is imported'
        )
    # ~/.keras/keras.json may say otherwise.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(PRECISIONS[precision])
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
