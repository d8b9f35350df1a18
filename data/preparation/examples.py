"""Examples as files, before anything of them is read."""

from __future__ import annotations

import typing
from collections.abc import Sequence

import numpy as np

from data.errors import DataError
from data.formats.image_reader import ImageRef


class Example(typing.NamedTuple):
    """An example as files.

    Attributes:
      name: unique in its split.
      images: in the order of the layout's features; then the map, if there is one.
      side_vector: float32 [K], if there is one.
    """

    name: str
    images: tuple[ImageRef, ...]
    side_vector: np.ndarray | None = None


class SkippedExample(typing.NamedTuple):
    """An example that cannot be used.

    Attributes:
      name: of the example.
      reason: one line that names a file.
    """

    name: str
    reason: str


def check_strict(skipped: Sequence[SkippedExample]) -> None:
    """Raises a `DataError` if an example was skipped."""
    if skipped:
        more = f"; {len(skipped) - 1} more cannot be used" if len(skipped) > 1 else ""
        raise DataError(f"{skipped[0].reason} (strict: nothing was written{more})")
