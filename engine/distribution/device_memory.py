"""Memory of the accelerators of this process."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def peak_device_bytes(names: Sequence[str]) -> int | None:
    """The most memory that the tensors of one accelerator have taken since the process began.

    The peak counts, since what limits a batch is the memory in the middle of a step. It is that of the device
    that has taken most.

    Args:
      names: TensorFlow's names of this process's devices.

    Returns:
      Bytes; None if no device tells, as some TPUs do not. CPUs use the memory of the host: they count as not
      telling, though TensorFlow has figures on processors where oneDNN's allocator is in use.
    """
    peaks = []
    for name in names:
        if tf.DeviceSpec.from_string(name).device_type == "CPU":
            continue
        try:
            peaks.append(int(tf.config.experimental.get_memory_info(name)["peak"]))
        except ValueError:  # no statistics for this kind of device
            continue
    return max(peaks, default=None)
