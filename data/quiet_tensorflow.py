"""TensorFlow without its start-up notes. A command-line program imports this first.

The notes on oneDNN and on CUDA come before any log level is looked at, so that TF_CPP_MIN_LOG_LEVEL
does not stop them, and they would bury the one line that says what is wrong with an input. TensorFlow
itself is imported when something needs it, as a program that only starts others never does.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import sys


@contextlib.contextmanager
def _without_stderr():
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where Python would, and has it executed without stderr."""

    def find_spec(self, fullname, path, target=None):
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                # When one of several workers ends, TensorFlow logs as errors what the others then raise.
                os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
                with _without_stderr():
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _QuietFinder())
