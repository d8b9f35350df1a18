"""CSV files with a row for each example: its name, then its values."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Sequence

from data import gfile
from data.errors import DataError

HEADER = "name"
"""What a header row begins with."""

_MOST_NAMED = 10


def read_rows(path: str) -> list[list[str]]:
    """Returns the cells of each row of a CSV file, without spaces around them, and no rows without text.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        with gfile.open_text(path, newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, ValueError) else error)
        raise DataError(f"{path}: cannot be read ({reason}); write a row per example") from error
    return [row for row in rows if any(row)]


def without_header(rows: list[list[str]]) -> list[list[str]]:
    """Returns rows without a first one that begins with `HEADER`."""
    return rows[1:] if rows and rows[0][0].lower() == HEADER else rows


def by_name(rows: list[list[str]], path: str) -> dict[str, list[str]]:
    """Returns {first cell: the other cells} of rows.

    Args:
      rows: without a header.
      path: of their file, for messages.

    Raises:
      DataError: there are no rows, or two of one name.
    """
    if not rows:
        raise DataError(f"{path}: holds no rows; write one per example")
    found: dict[str, list[str]] = {}
    repeated = []
    for name, *cells in rows:
        name = unicodedata.normalize("NFC", name)
        if name in found:
            repeated.append(name)
        found[name] = cells
    if repeated:
        raise DataError(f"{path}: has several rows for {listed(repeated, 'name')}; keep one of each")
    return found


def number(text: str) -> float:
    """Returns the number that a text is, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def listed(names: Sequence[str], noun: str, plural: str = "") -> str:
    """Counts and lists names, such as "3 examples (a, b, c)"; the plural is the noun with an s by default."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    count = f"{len(names)} {noun if len(names) == 1 else plural or noun + 's'}"
    return f"{count} ({', '.join(names[:_MOST_NAMED])}{more})"
