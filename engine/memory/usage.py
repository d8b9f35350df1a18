"""How much memory there is, how much is used, and how it grows with the number of examples.

Host memory is read from psutil, the process's resource limits and its control groups; the last two are
what a container or a batch system allows, and psutil does not know them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence

import psutil

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Peak memory of a step: a constant, and a share for each example of the micro-batch.

    Linear rather than a power law (as in Ultralytics's autobatch): weights, moments and the framework
    itself, the constant, are as large as the activations of several examples.

    Args:
      constant_bytes: what is used whatever the batch.
      bytes_per_example: what each further example of the micro-batch adds; at least 0.
    """

    constant_bytes: int
    bytes_per_example: int

    def at(self, micro_batch: int) -> int:
        """Peak bytes with `micro_batch` examples."""
        return self.constant_bytes + self.bytes_per_example * micro_batch

    def largest(self, budget_bytes: int) -> int:
        """Most examples whose peak is within the budget: 0 if not one fits, `sys.maxsize` if all do."""
        if self.at(1) > budget_bytes:
            return 0
        if self.bytes_per_example == 0:
            return sys.maxsize
        return (budget_bytes - self.constant_bytes) // self.bytes_per_example

    @classmethod
    def fit(cls, points: Sequence[tuple[int, int]]) -> MemoryModel:
        """Least squares over measured (micro-batch, peak bytes).

        Neither number may be negative, so where the best line falls, or where there is only one
        micro-batch, the result is the mean with no share for an example; and where its constant is
        below 0, it is the best line through the origin.

        Args:
          points: one or more.
        """
        count = len(points)
        mean_batch = sum(batch for batch, _ in points) / count
        mean_bytes = sum(size for _, size in points) / count
        spread = sum((batch - mean_batch) ** 2 for batch, _ in points)
        covariance = sum((batch - mean_batch) * (size - mean_bytes) for batch, size in points)
        if covariance <= 0:
            return cls(constant_bytes=round(mean_bytes), bytes_per_example=0)
        slope = covariance / spread
        constant = mean_bytes - slope * mean_batch
        if constant < 0:
            slope = sum(batch * size for batch, size in points) / sum(batch**2 for batch, _ in points)
            constant = 0
        return cls(constant_bytes=round(constant), bytes_per_example=round(slope))


def free_host_bytes() -> int:
    """Host memory that this process and its children may still use, together.

    The least of what the machine has available, what is left of the limits of the process's control
    groups (Linux), and what is left of RLIMIT_AS and RLIMIT_DATA. The last two limit addresses rather
    than memory, so where one is set the true number is larger. Swap does not count.
    """
    free = [psutil.virtual_memory().available, *_cgroup_free_bytes(), *_rlimit_free_bytes()]
    return max(0, min(free))


def resident_bytes() -> int:
    """Host memory that this process occupies now."""
    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """The most this process has occupied since `reset_peak_resident`, or since its start.

    Sources: VmHWM in proc(5); where there is no /proc, `ru_maxrss` (in bytes on macOS, KiB elsewhere).
    """
    try:
        with open("/proc/self/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+) kB", file.read()).group(1)) * 1024
    except OSError:
        if resource is None:
            return psutil.Process().memory_info().peak_wset
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_resident() -> None:
    """Gives freed memory back and lets the peak start again from what is resident then.

    Linux with glibc; proc(5), clear_refs, and malloc_trim(3). Elsewhere the peak stays that of all steps
    so far: right as long as every step takes more than the ones before it.
    """
    gc.collect()  # tracing leaves cycles behind
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc, or a /proc that is read only
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def xla_report_bytes(directory: str) -> int | None:
    """Memory of the largest program that XLA compiled into `directory`; None if it compiled none.

    It counts arguments, results and temporaries, and is known without running the program. The
    environment must have held XLA_FLAGS="--xla_dump_to=DIRECTORY --xla_dump_hlo_as_text" before the
    first compilation of the process.
    """
    sizes = []
    for path in glob.glob(os.path.join(glob.escape(directory), "*memory-usage-report.txt")):
        with open(path) as file:
            sizes += [int(size) for size in re.findall(r"Total bytes used: (\d+)", file.read())]
    return max(sizes, default=None)


def _rlimit_free_bytes() -> Iterator[int]:
    if resource is None:
        return
    used = psutil.Process().memory_info()
    for name, bytes_used in (("RLIMIT_AS", used.vms), ("RLIMIT_DATA", getattr(used, "data", used.rss))):
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            yield limit - bytes_used


def _cgroup_free_bytes(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[int]:
    """What is left of the limit of each control group this process is in, the outer ones included.

    Args:
      membership: file with a line "id:controllers:path" for each hierarchy; none but on Linux.
      root: where the hierarchies are mounted. In a container `path` may count from elsewhere, and only
        its outermost folder, the mount itself, exists.
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
            folder = os.path.join(mount, *parts[:depth])
            limit, used = (_first_number(os.path.join(folder, name)) for name in (limit_name, use_name))
            if limit is not None and used is not None:
                # File contents that were read long ago count as use, but are dropped when memory is short.
                cache = _first_number(os.path.join(folder, "memory.stat"), rf"{cache_name} ")
                yield limit - used + (cache or 0)


def _first_number(path: str, prefix: str = "") -> int | None:
    """The number of a control file, after `prefix` at the start of a line; None for "max" or no file."""
    try:
        with open(path) as file:
            found = re.search(rf"^{prefix}(\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
