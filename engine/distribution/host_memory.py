"""Memory of the host: how much is free, and how much this process uses.

The sources are psutil, the process's resource limits and its control groups. Containers and batch systems set
the last two, which psutil does not know.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator

import psutil

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]  # typeshed has no optional modules


def free_host_bytes() -> int:
    """Host memory that this process and its children together may still use.

    It is the minimum of the machine's available memory, the rest of each limit of the process's control
    groups (Linux), and the rest of RLIMIT_AS and RLIMIT_DATA. These two limit addresses, not memory, so with
    one of them set more is really free. Swap does not count.
    """
    free = [psutil.virtual_memory().available, *_cgroup_free_bytes(), *_rlimit_free_bytes()]
    return max(0, min(free))


def resident_bytes() -> int:
    """Host memory that this process uses now."""
    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """Peak of the host memory that this process used since `reset_peak_resident`, or since its start.

    Sources: VmHWM in proc(5); without /proc, `ru_maxrss` (in bytes on macOS, KiB elsewhere).
    """
    peak = _first_number("/proc/self/status", r"VmHWM:\s*", " kB")
    if peak is not None:
        return peak * 1024
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_resident() -> None:
    """Returns freed memory to the system and resets the peak to the memory that is resident then.

    After tracing, the freed heap is large enough to hide the memory of a step, hence malloc_trim(3). The peak
    is reset through clear_refs, proc(5). Both need Linux with glibc. Elsewhere the peak is that of all steps
    so far, which is right if every step needs more than the ones before it.
    """
    gc.collect()  # tracing leaves reference cycles
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc, or /proc is read-only
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def _rlimit_free_bytes() -> Iterator[int]:
    if resource is None:
        return
    used = psutil.Process().memory_info()
    for name, bytes_used in (("RLIMIT_AS", used.vms), ("RLIMIT_DATA", getattr(used, "data", used.rss))):
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            yield limit - bytes_used


def _cgroup_free_bytes(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[int]:
    """Yields the rest of the limit of each control group of this process, outer groups included.

    Args:
      membership: file with a line "id:controllers:path" for each hierarchy; exists on Linux only.
      root: where the hierarchies are mounted. In a container `path` may start elsewhere, so that only the
        mount itself exists.
    """
    try:
        with open(membership) as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return
    for identifier, controllers, path in lines:
        if identifier == "0":
            mount, limit_name, use_name, cache_name = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit_name = os.path.join(root, "memory"), "memory.limit_in_bytes"
            use_name, cache_name = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        parts = path.strip("/").split("/")
        for depth in range(len(parts) + 1):
            directory = os.path.join(mount, *parts[:depth])
            limit, used = (_first_number(os.path.join(directory, name)) for name in (limit_name, use_name))
            if limit is not None and used is not None:
                # Cached file contents count as used, but are dropped when memory is short.
                cache = _first_number(os.path.join(directory, "memory.stat"), rf"{cache_name} ")
                yield limit - used + (cache or 0)


def _first_number(path: str, prefix: str = "", suffix: str = "") -> int | None:
    """The number on the first line of this form in a file of the kernel; None for "max" or no file."""
    try:
        with open(path) as file:
            found = re.search(rf"^{prefix}(\d+){suffix}$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
