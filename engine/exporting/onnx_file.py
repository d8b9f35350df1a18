"""ONNX files, with the packages of the extra `onnx`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.exporting.translation import OUTPUT

_CONVERTER, _RUNTIME = "tf2onnx.convert", "onnxruntime"

_OPSET = 18
"""Version of the operators: runtimes since 2023 know it."""


def check_packages() -> None:
    """Raises ConfigurationError if the packages that write and run ONNX files are not installed."""
    try:
        for package in (_CONVERTER, _RUNTIME):
            importlib.import_module(package)
    except ImportError as error:
        raise ConfigurationError(
            f"--format=onnx: needs {error.name}, which is not installed; pip install tf2onnx onnxruntime, or "
            "use --format=tflite"
        ) from error


def convert(function: Any, specs: Mapping[str, tf.TensorSpec]) -> bytes:
    """Converts a function.

    Args:
      function: maps features by name to [B, H', W', C].
      specs: of the features.

    Raises:
      ConfigurationError: the operations of the function are not in ONNX.
    """
    names = list(specs)
    traced = tf.function(
        lambda *values: {OUTPUT: function(dict(zip(names, values, strict=True)))}, autograph=False
    )
    try:
        model, _ = importlib.import_module(_CONVERTER).from_function(
            traced, input_signature=list(specs.values()), opset=_OPSET
        )
    except Exception as error:  # it raises errors of many kinds
        raise ConfigurationError(
            f"--format=onnx: the run's networks cannot be converted ({error}); use --format=tflite"
        ) from error
    return model.SerializeToString()


class OnnxFile:
    """An ONNX file, to run it on the CPU.

    Args:
      content: of the file.
    """

    def __init__(self, content: bytes):
        runtime = importlib.import_module(_RUNTIME)
        self._session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def __call__(self, features: Mapping[str, Any]) -> np.ndarray:
        """Runs it on a batch; returns [B, H', W', C]."""
        given = {name: np.asarray(values, np.float32) for name, values in features.items()}
        return self._session.run([OUTPUT], given)[0]
