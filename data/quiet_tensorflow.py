"""Imports TensorFlow quietly and fast; import this before anything that imports TensorFlow.

The messages about oneDNN and CUDA are printed before TensorFlow reads its log level, so
TF_CPP_MIN_LOG_LEVEL does not stop them. They would hide a one-line error message. They are shown if the
import fails or the process dies in it: a native crash, as on a processor that TensorFlow was not built for,
leaves no other trace.

The import makes half a million objects that live as long as the process. Python's garbage collector would
look through them again and again, for a third of the time of the import, and as long again until the first
training step. It looks once, and never again.

This module does not import TensorFlow: a program that does not need it starts at once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_is_keeping = False


def discard_kept_output() -> None:
    """Drops what was kept back so far. For a process that ends on purpose while it imports TensorFlow."""
    if _is_keeping:
        os.write(2, _ALL_IS_WELL)


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the other finders do, and keeps its stderr back while it is imported."""

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
    global _is_keeping
    # When one of several workers ends, TensorFlow logs as errors what the others then raise. The level is set
    # here and not earlier: a program that starts workers would pass its own level on to them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    stderr = os.dup(2)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _KEEPER], stdin=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        os.dup2(keeper.stdin.fileno(), 2)
        _is_keeping = True
        try:
            with _few_collections(), _lazy_plots():
                execute(module)
            os.write(2, _ALL_IS_WELL)
        finally:
            _is_keeping = False
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Collects only among new objects; at the end, all objects count as permanent."""
    gc.collect()  # what is garbage already would stay
    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_PER_COLLECTION, 1000, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.freeze()


_OBJECTS_PER_COLLECTION = 50_000  # with 0, never, four in ten objects would be garbage that stays


@contextlib.contextmanager
def _lazy_plots() -> Iterator[None]:
    """Lets Keras import pyplot, which takes a quarter of a second, only for those who plot with it."""
    finder = _LazyFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _LazyFinder(importlib.abc.MetaPathFinder):
    """Finds pyplot so that it is executed when one of its attributes is first asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "matplotlib.pyplot":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


_ALL_IS_WELL = b"\0imported"
# A process of its own, as this one may die.
_KEEPER = f"""
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
text = b""
while not text.endswith({_ALL_IS_WELL!r}):
    more = os.read(0, 65536)
    if not more:
        os.write(2, text)
        break
    text += more
"""

if "tensorflow" not in sys.modules:
    sys.meta_path.insert(0, _QuietFinder())
