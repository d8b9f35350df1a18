"""TensorFlow's deterministic mode: operations that give the same bits every time.

On a CPU TensorFlow is deterministic anyway. On GPUs it is not: cuDNN chooses its algorithms by timing them,
and some kernels add in the order in which threads finish. In deterministic mode TensorFlow chooses other,
slower algorithms, raises `UnimplementedError` where there are none, and requires seeds. The mode holds for
the whole process and cannot be switched off again.
"""

from __future__ import annotations

import time

import keras
import tensorflow as tf

# TensorFlow has no public function for this; Keras uses the same one.
from tensorflow.python.framework.config import is_op_determinism_enabled

from engine.errors import ConfigurationError


def set_determinism(enabled: bool, *, seed: int) -> None:
    """Switches deterministic mode on. Call it before any computation.

    Args:
      enabled: whether the mode is wanted.
      seed: of the global generators. In this mode an operation that draws from them without a seed raises.

    Raises:
      ConfigurationError: the mode is not wanted, but this process has switched it on.
    """
    if enabled:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
    elif is_op_determinism_enabled():
        raise ConfigurationError(
            "DETERMINISM = False: this process is deterministic already, which TensorFlow cannot undo; "
            "start a new process, or set DETERMINISM = True"
        )


def is_deterministic() -> bool:
    """Whether deterministic mode is on in this process, whoever switched it on."""
    return is_op_determinism_enabled()


def now() -> tf.Tensor:
    """Seconds at the time of execution: float64 scalar."""
    if not is_deterministic():
        return tf.timestamp()
    seconds = tf.numpy_function(time.time, [], tf.float64)  # deterministic mode refuses tf.timestamp
    seconds.set_shape([])
    return seconds
