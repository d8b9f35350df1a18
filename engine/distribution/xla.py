"""Compiling the training step with XLA (`JIT_COMPILE`), in whole batches.

On one device XLA fuses the operations of the whole step, from forward pass to update, into few kernels for
fixed shapes. On several replicas of one process it compiles the parts between the all-reduces, see
`engine.inner_loop.compiled_parts`: replicas may not communicate in the forward pass, so batch norm is
refused.

Each batch size of the schedule is compiled once, which takes far longer than tracing. Results equal those
without XLA up to rounding, except random floating-point numbers: XLA makes them from the same random bits in
another way, so dropout masks and latent codes differ. Random whole numbers and `stateless_fold_in` are the
same.

Shapes must be known at compile time. If a shape depends on the value of a tensor, such as the step number,
the step is silently compiled again for each value. An index in brackets does the same: x[i] is a slice, whose
bounds are constants for XLA. `tf.gather(x, i)` is compiled once.

Collectives stay outside XLA: several GPUs that communicate inside it are known to hang. Several workers are
refused, because that has not been tried. A TPU always compiles with XLA and ignores the setting.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from engine.distribution.devices import Devices
from engine.errors import ConfigurationError

_REFUSALS = (
    r"unsupported operations.*?: (\w+) \(No registered",
    r"\{\{node ([\w/]+)\}\}.*tf2xla conversion failed",
)
"""Patterns of XLA's messages about an operation that it does not support: by type, or by name."""


def compiles_with_xla(devices: Devices, *, wanted: bool) -> bool:
    """Whether to compile the step with `tf.function(jit_compile=True)`.

    Args:
      devices: of the run.
      wanted: the setting JIT_COMPILE.

    Raises:
      ConfigurationError: XLA is wanted, but there are several workers.
    """
    if not wanted or devices.is_tpu:
        return False
    if devices.is_multi_worker:
        raise ConfigurationError(
            "JIT_COMPILE = True: XLA compiles on the devices of one process, not on several workers; train "
            "on one machine, or set JIT_COMPILE = False"
        )
    return True


def needs_static_shapes(devices: Devices, *, jit_compile: bool) -> bool:
    """Whether every batch must have one shape on all replicas.

    On one device XLA takes the shape of each batch as it comes.

    Args:
      devices: of the run.
      jit_compile: the setting JIT_COMPILE.
    """
    return devices.needs_static_shapes or (jit_compile and devices.replicas > 1)


@contextlib.contextmanager
def reraise_xla_errors() -> Iterator[None]:
    """Raises ConfigurationError with the name of the operation where XLA refuses to compile."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.InternalError) as error:
        found = [match[1] for match in (re.search(p, str(error), re.DOTALL) for p in _REFUSALS) if match]
        if not found:
            raise
        raise ConfigurationError(
            f"JIT_COMPILE = True: XLA does not compile the operation {found[0]}, which this task uses; set "
            "JIT_COMPILE = False, or write the task without it"
        ) from error
