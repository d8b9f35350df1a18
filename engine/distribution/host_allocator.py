"""Settings of glibc's allocator, for steps on a CPU.

By default glibc returns every large block to the system when it is freed, and a step on a CPU allocates
hundreds of megabytes in large blocks. The next step faults each of their pages in again, which the system
first fills with zeros. What was measured is in tests/benchmarks/RESULTS.md, "The step on a CPU".
"""

from __future__ import annotations

import ctypes
import os
import platform

_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: threads share one heap, as only the main one may grow and keep its memory
    -4: 0,  # M_MMAP_MAX: blocks of every size are in the heap
    -1: -1,  # M_TRIM_THRESHOLD: the heap keeps what is freed
}
"""Parameters of mallopt(3), by their numbers in malloc.h, and their values."""

_OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of environment variables by which a user chooses or sets an allocator."""


def keep_freed_memory() -> bool:
    """Makes the process keep the memory that it frees, for its next step.

    The process then holds what it needed at its peak until it ends. Call it before TensorFlow starts its
    threads; a second call changes nothing.

    Returns:
      Whether it is so: False without glibc, or if environment variables set an allocator.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_OWN_SETTINGS) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(parameter, value) for parameter, value in _SETTINGS.items()])
