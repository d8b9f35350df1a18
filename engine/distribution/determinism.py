"""Operations that give the same bits every time, against the fastest ones.

On a CPU the default is deterministic already, on GPUs it is not: cuDNN chooses its algorithms by timing
them, and some kernels add in whatever order threads finish. TensorFlow's deterministic mode chooses others,
slower ones, raises `UnimplementedError` where there are none, and wants every seed set. It holds for the
process and cannot be ended again.
"""

from __future__ import annotations

import time

import keras
import tensorflow as tf

# Without a public counterpart; Keras asks it the same way.
from tensorflow.python.framework.config import is_op_determinism_enabled

from engine.errors import ConfigurationError


def set_determinism(wanted: bool, *, seed: int) -> None:
    """Call it before anything is computed.

    Args:
      seed: for the global generators; an operation that draws from them without one raises from then on.

    Raises:
      ConfigurationError: the process is deterministic and is not wanted to be.
    """
    if wanted:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
    elif is_op_determinism_enabled():
        raise ConfigurationError(
            "DETERMINISM = False: this process was made deterministic earlier, which TensorFlow cannot undo; "
            "start a new process, or set DETERMINISM = True"
        )


def is_deterministic() -> bool:
    """Whether this process computes so, whoever asked for it."""
    return is_op_determinism_enabled()


def now() -> tf.Tensor:
    """float64 scalar: seconds, when it is run. TensorFlow's own clock is refused in deterministic mode."""
    if not is_deterministic():
        return tf.timestamp()
    seconds = tf.numpy_function(time.time, [], tf.float64)
    seconds.set_shape([])
    return seconds
