"""Which values images hold: extremes, how often they occur, and percentiles of a sample."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np

_SAMPLED_PER_IMAGE = 1024
_MOST_SAMPLED = 2**16


class Extreme(typing.NamedTuple):
    """The lowest or highest value.

    Attributes:
      value: itself.
      times: how often it occurs.
      next: the value nearest to it; the same if there is no other.
    """

    value: float
    times: int
    next: float

    def merged(self, other: Extreme, *, sign: int) -> Extreme:
        """The extreme of both; the lowest if `sign` is 1, the highest if it is -1."""
        first, second = sorted((self, other), key=lambda extreme: sign * extreme.value)
        if first.value == second.value:
            candidates = [each.next for each in (first, second) if each.next != first.value]
            times = first.times + second.times
        else:
            candidates = [second.value] + ([first.next] if first.next != first.value else [])
            times = first.times
        nearest = min(candidates, key=lambda value: sign * value) if candidates else first.value
        return Extreme(first.value, times, nearest)


class ImageValues(typing.NamedTuple):
    """The values of one image.

    Attributes:
      size: number of values.
      lowest: the lowest.
      highest: the highest.
      sample: some of them, all equally likely: float32 [N].
    """

    size: int
    lowest: Extreme
    highest: Extreme
    sample: np.ndarray


def values_of(pixels: np.ndarray) -> ImageValues:
    """Returns the values of an image, any shape and real dtype, all finite."""
    values = pixels.reshape(-1)
    low, high = values.min(), values.max()
    is_low, is_high = values == low, values == high
    # `where` and `initial` need no copy of the values.
    after_low = values.min(where=~is_low, initial=high)
    before_high = values.max(where=~is_high, initial=low)
    sample = values
    if values.size > _SAMPLED_PER_IMAGE:
        chosen = np.random.default_rng(values.size).integers(values.size, size=_SAMPLED_PER_IMAGE)
        sample = values[chosen]
    return ImageValues(
        values.size,
        Extreme(float(low), int(is_low.sum()), float(after_low)),
        Extreme(float(high), int(is_high.sum()), float(before_high)),
        sample.astype(np.float32),
    )


@dataclasses.dataclass(kw_only=True)
class ValueStatistics:
    """The values of many images, in bounded memory.

    Attributes:
      size: number of values.
      lowest: the lowest; None before the first image.
      highest: the highest; None before the first image.
    """

    size: int = 0
    lowest: Extreme | None = None
    highest: Extreme | None = None
    _samples: list[np.ndarray] = dataclasses.field(default_factory=list)
    _sampled: int = 0
    _every: int = 1

    def add(self, image: ImageValues) -> None:
        """Adds the values of an image."""
        self.size += image.size
        self.lowest = self.lowest.merged(image.lowest, sign=1) if self.lowest else image.lowest
        self.highest = self.highest.merged(image.highest, sign=-1) if self.highest else image.highest
        self._samples.append(image.sample[:: self._every].copy())  # not a view of all of it
        self._sampled += len(self._samples[-1])
        if self._sampled > _MOST_SAMPLED:
            kept = np.concatenate(self._samples)[::2]
            self._samples, self._sampled, self._every = [kept], len(kept), 2 * self._every

    def percentiles(self, *percents: float) -> list[float]:
        """Returns percentiles of the sample, by percents in [0, 100]."""
        return [float(value) for value in np.percentile(np.concatenate(self._samples), percents)]

    def distinct(self) -> int:
        """Returns the number of distinct values in the sample."""
        return len(np.unique(np.concatenate(self._samples)))
