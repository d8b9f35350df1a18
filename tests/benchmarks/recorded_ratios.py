"""The ratios that were recorded where it was quiet, and what counts as a fall below them."""

import json
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, float | str]
"""A result. "speed" is a ratio to "base", larger is better. Other numbers are never compared."""

RECORDED = Path(__file__).parent / "recorded.json"
LARGEST_FALL = 0.15


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
