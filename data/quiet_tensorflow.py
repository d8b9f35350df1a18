"""Imports TensorFlow without its start-up notes. A command-line program imports this first.

The notes on oneDNN and on CUDA come before any log level is looked at, so that TF_CPP_MIN_LOG_LEVEL
does not stop them, and they would bury the one line that says what is wrong with an input.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_stderr = os.dup(2)
with open(os.devnull, "wb") as _nowhere:
    os.dup2(_nowhere.fileno(), 2)
try:
    import tensorflow  # noqa: F401
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
