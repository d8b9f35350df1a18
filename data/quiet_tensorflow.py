"""Hushes TensorFlow's start-up notes. A command-line program imports this first.

The notes on oneDNN and on CUDA come before any log level is looked at, so that TF_CPP_MIN_LOG_LEVEL
does not stop them, and they would bury the one line that says what is wrong with an input.

TensorFlow is hushed when something imports it, not imported here: a program that does without it
starts at once.
"""

import importlib.abc
import importlib.util
import os
import sys


class _Hush(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the finders after it do, and discards stderr while it is imported."""

    def find_spec(self, fullname, path=None, target=None):
        del path, target
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _without_stderr(execute, module)
        return spec


def _without_stderr(execute, module) -> None:
    # When one of several workers ends, TensorFlow logs as errors what the others then raise. Set no earlier:
    # a program that starts workers would hand its own level on to them.
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
    sys.meta_path.insert(0, _Hush())
