"""Measures whether the borders of tiles can be seen in an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_NEIGHBOURS = (-4, -3, -2, 2, 3, 4)
"""Steps beside a border that it is compared with, in pixels; those at 1 touch the border's own pixels."""


def seam_ratio(image: np.ndarray, *, rows: Iterable[int], columns: Iterable[int]) -> float:
    """Compares the steps across borders with the image's own steps beside them.

    Args:
      image: [H, W, C] of any dtype.
      rows: first rows behind horizontal borders.
      columns: first columns behind vertical borders.

    Returns:
      Mean absolute step across the borders, divided by that 2 to 4 pixels beside them: 1 where nothing can be
      seen. 1 too if the image has no steps there at all, or no borders.
    """
    across, beside = [0.0, 0], [0.0, 0]
    for axis, borders in ((0, rows), (1, columns)):
        for border in borders:
            _add(across, _steps(image, axis, [border]))
            _add(beside, _steps(image, axis, [border + n for n in _NEIGHBOURS]))
    if not across[1] or not beside[1]:
        return 1.0
    step, usual = across[0] / across[1], beside[0] / beside[1]
    return step / usual if usual else 1.0 if not step else float("inf")


def _add(total: list, steps: Iterator[np.ndarray]) -> None:
    for step in steps:
        total[0] += float(step.sum())
        total[1] += step.size


def _steps(image: np.ndarray, axis: int, positions: Iterable[int]) -> Iterator[np.ndarray]:
    """The absolute differences between the pixels at a position and those before it."""
    for position in positions:
        if 1 <= position < image.shape[axis]:
            before, behind = (np.take(image, n, axis=axis) for n in (position - 1, position))
            yield np.abs(behind.astype(np.float64) - before.astype(np.float64))
