"""How TensorFlow computes on GPUs: TF32, the choice of cuDNN's algorithms, the allocator.

TensorFlow reads two of these from the environment when it first needs them, so they are set before it starts
its devices. A variable that is set already is respected: a setting that contradicts it is refused, never
ignored. On a machine without a GPU none of this has an effect.

The layout of images is none of these options. Networks are channels-last; where convolutions do not run on
tensor cores, TensorFlow's layout optimizer turns them to channels-first by itself, and XLA chooses a layout
for each operation.
"""

from __future__ import annotations

import os

import tensorflow as tf

from engine.distribution.determinism import is_deterministic
from engine.errors import ConfigurationError

AUTOTUNE = "TF_CUDNN_USE_AUTOTUNE"
ALLOCATOR = "TF_GPU_ALLOCATOR"


def set_gpu_options(*, tf32: bool, cudnn_autotune: bool | None, cuda_malloc_async: bool) -> None:
    """Sets the options of this process. Call it before any computation, and after `set_determinism`.

    Args:
      tf32: whether products and convolutions of float32 may round their operands to 10 bits of mantissa, on
        GPUs that have tensor cores for that (Ampere and later). It holds for XLA too.
      cudnn_autotune: whether cuDNN's algorithms are timed at the first convolution of each shape, to take the
        fastest; otherwise the first that a heuristic names is taken. None: yes, but not in deterministic
        mode, where the choice must not depend on a clock.
      cuda_malloc_async: whether CUDA's allocator takes the place of TensorFlow's. It fragments less when the
        sizes of batches change.

    Raises:
      ConfigurationError: an option contradicts the environment, or deterministic mode.
    """
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    if is_deterministic():
        if cudnn_autotune:
            raise ConfigurationError(
                "Experiment.cudnn_autotune = True: timing chooses other algorithms in other runs, which "
                "DETERMINISM = True rules out; set one of them to False"
            )
        _set(AUTOTUNE, "0", "DETERMINISM = True")
    elif cudnn_autotune is not None:
        _set(AUTOTUNE, "1" if cudnn_autotune else "0", f"Experiment.cudnn_autotune = {cudnn_autotune}")
    if cuda_malloc_async:
        _set(ALLOCATOR, "cuda_malloc_async", "Experiment.cuda_malloc_async = True")


def _set(variable: str, value: str, setting: str) -> None:
    found = os.environ.setdefault(variable, value)
    # TensorFlow reads its switches as "0", "1", "false" or "true".
    if {"false": "0", "true": "1"}.get(found.lower(), found) != value:
        raise ConfigurationError(
            f"{setting}: contradicts the environment, where {variable} is {found!r}; unset the variable, or "
            "change the setting"
        )
