"""TFLite files: float32, float16 weights, or int8 calibrated with examples."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.exporting.saved_model import FLOATS
from engine.exporting.translation import OUTPUT


def convert(path: str, *, dtype: str, calibration: Iterable[Mapping[str, tf.Tensor]] = ()) -> bytes:
    """Converts a SavedModel.

    Args:
      path: of the SavedModel, whose signature for floats is converted.
      dtype: "float32"; "float16", whose weights are; or "int8", whose weights and activations are, where
        TFLite has such operations. Inputs and outputs are float32.
      calibration: examples, each a batch of one, for "int8".

    Returns:
      The file.

    Raises:
      ConfigurationError: TFLite cannot do what the networks do.
    """
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[FLOATS])
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if dtype == "int8":
            converter.representative_dataset = lambda: (
                (FLOATS, {name: value.numpy() for name, value in row.items()}) for row in calibration
            )
        try:
            return converter.convert()
        except Exception as error:  # the converter's own error is not public
            raise ConfigurationError(
                f"--format=tflite: TFLite cannot convert the run's networks ({_first_line(error)}); use "
                "--format=saved_model"
            ) from error


class TfliteFile:
    """A TFLite file, to run it.

    Args:
      content: of the file.
      threads: that compute.
    """

    def __init__(self, content: bytes, *, threads: int | None = None):
        with _quiet():
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
        self._run = self._interpreter.get_signature_runner(FLOATS)

    def __call__(self, features: Mapping[str, Any]) -> np.ndarray:
        """Runs it on a batch; returns [B, H', W', C]."""
        return self._run(**{name: np.asarray(values, np.float32) for name, values in features.items()})[
            OUTPUT
        ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about TFLite's future, and without what its native code writes to stderr."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with warnings.catch_warnings(), open(os.devnull, "wb") as nothing:
            warnings.simplefilter("ignore")
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
