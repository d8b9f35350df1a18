"""Rows of results: the machine, and their table."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata

from tests.benchmarks.recorded_ratios import Row

_COMMON = ("table", "case", "peer", "base", "speed", "machine", "load")


def machine() -> str:
    """The processor, the cores that this process may use, the memory, and TensorFlow."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    package = metadata.packages_distributions()["tensorflow"][0]  # or tensorflow-cpu
    return f"{model}, {cores} cores, {gib:.0f} GiB, {package} {metadata.version(package)}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| Table | Case | Peer | Base | Times the base's speed | |", "|---|---|---|---|---|---|"]
    for row in rows:
        more = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name not in _COMMON)
        common = [row[name] for name in ("table", "case", "peer", "base")]
        lines.append("| " + " | ".join([*map(str, common), f"{row['speed']:.2f}", more]) + " |")
    return "\n".join(lines)
