"""Rows of results: what they have in common, their table, and the comparison with recorded ratios."""

import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tests.benchmarks.training_step.compare import LARGEST_FALL

Row = dict[str, float | str]
"""A result. "speed" is a ratio to "base", larger is better. Other numbers are never compared."""

RECORDED = Path(__file__).parent / "recorded.json"
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


def falls(rows: Sequence[Row], recorded: dict[str, float]) -> list[str]:
    """Says which ratios are more than `LARGEST_FALL` below the recorded ones, or are not recorded."""
    found = []
    for row in rows:
        key = _key(row)
        if key not in recorded:
            found.append(f"{key}: nothing is recorded; run with --record where it is quiet")
        elif float(row["speed"]) < (1 - LARGEST_FALL) * recorded[key]:
            found.append(f"{key}: {row['speed']:.2f}, recorded {recorded[key]:.2f}")
    return found


def read_recorded() -> dict[str, float]:
    """The recorded ratios, by the name of their row; {} if there are none."""
    return json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}


def record(rows: Sequence[Row]) -> None:
    """Records the ratios of the rows; those of other rows stay."""
    recorded = read_recorded() | {_key(row): round(float(row["speed"]), 3) for row in rows}
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")


def _key(row: Row) -> str:
    return f"{row['table']}: {row['case']}: {row['peer']} / {row['base']}"
