"""Joining tiles that share pixels, with weights that sum to one."""

from __future__ import annotations

import dataclasses

import numpy as np


def ramp(shared: int, margin: int) -> np.ndarray:
    """Weights of the second of two neighbours on the pixels that they share; the first one has the rest to 1.

    They rise from 0 to 1 as sin^2, which has no corner at either end.

    Args:
      shared: number of pixels that both have.
      margin: pixels at the border of a tile that are not used where the other tile has them too, because the
        network sees them without their surroundings. If too few are shared for that, half of them are used.

    Returns:
      float32 [shared]: `margin` times 0, the rise, `margin` times 1.
    """
    margin = used_margin(shared, margin)
    rising = shared - 2 * margin
    positions = (np.arange(rising) + 0.5) / max(rising, 1)
    weights = np.zeros(shared, np.float32)
    weights[margin : margin + rising] = np.sin(positions * np.pi / 2) ** 2
    weights[margin + rising :] = 1.0
    return weights


def used_margin(shared: int, margin: int) -> int:
    """The margin that `ramp` leaves at both ends."""
    return margin if 2 * margin <= shared else shared // 4


@dataclasses.dataclass
class Disagreement:
    """How far neighbours differ on the pixels that they share, before they are blended.

    Attributes:
      total: sum of the absolute differences.
      count: number of values compared.
    """

    total: float = 0.0
    count: int = 0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Compares the same pixels of two tiles."""
        self.total += float(np.abs(first - second).sum(dtype=np.float64))
        self.count += first.size

    @property
    def mean(self) -> float:
        """Mean absolute difference; 0 where nothing is shared."""
        return self.total / self.count if self.count else 0.0


class Joined:
    """Joins parts of an image along one axis, in order; finished pixels can be taken out before the end.

    Args:
      axis: along which the parts lie.
      margin: see `ramp`.
      disagreement: where differences of shared pixels are counted.
    """

    def __init__(self, *, axis: int, margin: int, disagreement: Disagreement):
        self._axis, self._margin, self._disagreement = axis, margin, disagreement
        self._start = 0
        self._pending: np.ndarray | None = None

    def add(self, start: int, part: np.ndarray) -> np.ndarray | None:
        """Adds the next part.

        Args:
          start: its first pixel; not before that of the last part, not behind its end.
          part: float32 [H, W, C].

        Returns:
          The pixels that no later part can change, those before `start`; None if there are none.
        """
        if self._pending is None:
            self._start, self._pending = start, part
            return None
        done, rest = np.split(self._pending, [start - self._start], axis=self._axis)
        shared = rest.shape[self._axis]
        ours, new = np.split(part, [shared], axis=self._axis)
        margin = used_margin(shared, self._margin)
        used = slice(margin, shared - margin)
        self._disagreement.add(*(np.moveaxis(x, self._axis, 0)[used] for x in (rest, ours)))
        shape = [1] * part.ndim
        shape[self._axis] = shared
        weights = ramp(shared, self._margin).reshape(shape)
        mixed = rest + weights * (ours - rest)
        self._start, self._pending = start, np.concatenate([mixed, new], axis=self._axis)
        return done if done.size else None

    def rest(self) -> np.ndarray:
        """The pixels that `add` has not returned."""
        assert self._pending is not None, "a part was added"
        return self._pending
