"""The compiled step under XLA, where that works: on one device, in whole batches.

XLA fuses the operations of forward pass, losses, gradients and update of all phases into few kernels, for
fixed sizes: each batch size of the schedule is compiled once, which takes far longer than tracing. Results
are those without it up to rounding, except that floating-point noise is made of the same random bits in
another way: dropout masks, latent codes and the like are other draws.

What decides a shape has to be known when it is compiled. A task in which a shape follows from a tensor of the
step, such as its number, is compiled anew in every step.

Several replicas are refused: their sums are made outside XLA, between parts of the step (and several GPUs
that communicate inside it are known to hang). A TPU knows nothing else, and needs no setting.
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
"""How XLA says which operation, or which by name, it does not take."""


def compiles_with_xla(devices: Devices, *, wanted: bool) -> bool:
    """Whether the step is to be compiled by `tf.function(jit_compile=True)`.

    Raises:
      ConfigurationError: it is wanted, and there are several replicas.
    """
    if not wanted or devices.is_tpu:
        return False
    if devices.replicas > 1:
        raise ConfigurationError(
            f"JIT_COMPILE = True: XLA cannot compile a step in which {devices.replicas} replicas add up their "
            "gradients; use one device (STRATEGY = 'one_device'), or JIT_COMPILE = False"
        )
    return True


@contextlib.contextmanager
def reraise_xla_errors() -> Iterator[None]:
    """Raises ConfigurationError, naming the operation, where XLA refuses to compile."""
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
