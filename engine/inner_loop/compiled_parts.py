"""Parts of a replica's step that XLA compiles where the whole step communicates with other replicas.

The forward pass is one program, and so are the losses of each phase. The tape that records them makes the
backward pass of each another program. All-reduces and updates stay between the programs, so no collective is
inside XLA. What the backward pass needs of the forward pass goes from program to program as tensors, so the
one tape over all phases is as without XLA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from engine.errors import ConfigurationError
from engine.replica_context import CommunicationError, forbid_communication

T = TypeVar("T")


def uncompiled(part: Callable[[], T]) -> T:
    """Runs a part as it is."""
    return part()


def compiled(part: Callable[[], T]) -> T:
    """Traces a part as an XLA program and calls it (in replica context, while the step is traced).

    Args:
      part: returns a nested structure of tensors; may read and assign the replica's variables.

    Raises:
      CommunicationError: the part communicates with other replicas.
    """
    with forbid_communication():
        # A function of its own on each replica: its variables are those of that replica's device.
        return tf.function(part, autograph=False, jit_compile=True)()


def compiled_forward(part: Callable[[], T]) -> T:
    """`compiled` for a forward pass.

    Raises:
      ConfigurationError: the part communicates with other replicas.
    """
    try:
        return compiled(part)
    except CommunicationError as error:
        raise ConfigurationError(
            "JIT_COMPILE = True: XLA does not compile a forward pass in which replicas communicate, as batch "
            "norm does; set NORM = 'instance', use one device (STRATEGY = 'one_device'), or set "
            "JIT_COMPILE = False"
        ) from error


def compiled_losses(part: Callable[[], T]) -> T:
    """`compiled` for losses; those that communicate, as with the image pool of CycleGAN, are not compiled."""
    try:
        return compiled(part)
    except CommunicationError:
        return part()
