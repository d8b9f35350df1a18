"""Silences TensorFlow's start-up messages; import this before anything that imports TensorFlow.

The messages about oneDNN and CUDA are printed before TensorFlow reads its log level, so
TF_CPP_MIN_LOG_LEVEL does not stop them. They would hide a one-line error message.

This module does not import TensorFlow: a program that does not need it starts at once.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the other finders do, and discards stderr while it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            # The loader stays the one that Python chose, so only its method is replaced.
            spec.loader.exec_module = lambda module: _without_stderr(execute, module)  # type: ignore[method-assign]
        return spec


def _without_stderr(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    # When one of several workers ends, TensorFlow logs as errors what the others then raise. The level is set
    # here and not earlier: a program that starts workers would pass its own level on to them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        execute(module)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


if "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _QuietFinder())
