"""What the stored targets of a data set are together: examples of each class, statistics of numbers."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.preparation.targets import check_trainable
from data.roles import CLASSES
from data.tfrecords.target_format import TARGET_NAMES, TARGET_STATISTICS, TargetFormat

_MOST_SHOWN = 50


class TargetSummary:
    """The targets of all examples that were stored.

    Args:
      target: their format.
      values: split -> the value of each example: the index of a class, or float32 [K].
      where: the source, named in errors.
    """

    def __init__(self, target: TargetFormat, values: Mapping[str, Sequence], *, where: str):
        self._target, self._values, self._where = target, values, where

    def metadata(self) -> dict[str, Any]:
        """Returns the entries for the metadata of the data set.

        Raises:
          DataError: a class has no training example, or a number is the same in all of them.
        """
        names = self._target.names
        if self._target.kind == CLASSES:
            check_trainable(names, (names[index] for index in self._values["train"]), where=self._where)
            return {}
        train = self._numbers("train")
        for name, low, high in zip(names, train.min(axis=0), train.max(axis=0), strict=True):
            if low == high:
                raise DataError(
                    f"{self._where}: {name!r} is {low:g} for all training examples, so there is nothing to "
                    "learn; remove the column or add other examples"
                )
        statistics = {"mean": train.mean(axis=0).tolist(), "standard_deviation": train.std(axis=0).tolist()}
        return {TARGET_NAMES: list(names), TARGET_STATISTICS: statistics}

    def lines(self) -> tuple[str, ...]:
        """Returns a line for each class or number, with its examples or statistics in each split."""
        of_name = self._class_lines() if self._target.kind == CLASSES else self._number_lines()
        hidden = len(of_name) - _MOST_SHOWN
        return (*of_name[:_MOST_SHOWN], *([f"and {hidden} more"] if hidden > 0 else []))

    def _class_lines(self) -> list[str]:
        counts = {split: collections.Counter(indices) for split, indices in self._values.items()}
        return [
            f"{name}: {', '.join(f'{split} {of_split[index]}' for split, of_split in counts.items())}"
            for index, name in enumerate(self._target.names)
        ]

    def _number_lines(self) -> list[str]:
        numbers = {split: self._numbers(split) for split in self._values}
        return [
            f"{name}: "
            + "; ".join(f"{split} {_described(of_split[:, k])}" for split, of_split in numbers.items())
            for k, name in enumerate(self._target.names)
        ]

    def _numbers(self, split: str) -> np.ndarray:
        """The numbers of a split: float64 [examples, K], so that sums of many are exact enough."""
        return np.array(self._values[split], np.float64)


def _described(numbers: np.ndarray) -> str:
    """The statistics of numbers [examples]."""
    return (
        f"mean {numbers.mean():g}, standard deviation {numbers.std():g}, {numbers.min():g} to "
        f"{numbers.max():g}"
    )
