"""Examples as files, before anything of them is read."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from data.errors import DataError
from data.formats.image_reader import ImageRef


class Example(typing.NamedTuple):
    """An example as files.

    Attributes:
      name: unique in its split.
      images: in the order of the layout's features; then the map, if there is one.
      values: feature -> what is stored beside the images: a vector float32 [K], or the index of a class.
    """

    name: str
    images: tuple[ImageRef, ...]
    values: Mapping[str, np.ndarray | int] = types.MappingProxyType({})

    def with_value(self, feature: str, value: np.ndarray | int) -> Example:
        """Returns the example with one more value."""
        return self._replace(values={**self.values, feature: value})


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
