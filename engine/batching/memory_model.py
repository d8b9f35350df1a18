"""How the memory of a step grows with the number of examples, and which size to measure next."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Peak memory of a step: a constant plus a part for each example of the micro-batch.

    It is linear, not a power law as in Ultralytics's autobatch, because the constant (weights, moments, the
    framework itself) is as large as the activations of several examples.

    Attributes:
      constant_bytes: memory that does not depend on the batch.
      bytes_per_example: memory for each example of the micro-batch; at least 0.
    """

    constant_bytes: int
    bytes_per_example: int

    def at(self, micro_batch: int) -> int:
        """Peak bytes with `micro_batch` examples."""
        return self.constant_bytes + self.bytes_per_example * micro_batch

    def largest(self, budget_bytes: int) -> int:
        """The most examples within the budget: 0 if none fits, `sys.maxsize` if any number fits."""
        if self.at(1) > budget_bytes:
            return 0
        if self.bytes_per_example == 0:
            return sys.maxsize
        return (budget_bytes - self.constant_bytes) // self.bytes_per_example

    @classmethod
    def fit(cls, points: Sequence[tuple[int, int]]) -> MemoryModel:
        """Fits the model to measurements by least squares.

        Neither number may be negative. If the best line falls, or there is only one micro-batch, the constant
        is the mean and an example needs 0 bytes. If the constant of the best line is below 0, the result is
        the best line through the origin.

        Args:
          points: (micro-batch, peak bytes); at least one.
        """
        count = len(points)
        mean_batch = sum(batch for batch, _ in points) / count
        mean_bytes = sum(size for _, size in points) / count
        spread = sum((batch - mean_batch) ** 2 for batch, _ in points)
        covariance = sum((batch - mean_batch) * (size - mean_bytes) for batch, size in points)
        if covariance <= 0:
            return cls(constant_bytes=round(mean_bytes), bytes_per_example=0)
        slope = covariance / spread
        constant = mean_bytes - slope * mean_batch
        if constant < 0:
            slope = sum(batch * size for batch, size in points) / sum(batch**2 for batch, _ in points)
            constant = 0
        return cls(constant_bytes=round(constant), bytes_per_example=round(slope))


def largest_within(
    points: Sequence[tuple[int, int]], *, budget_bytes: int | None, limit: int, exhausted: bool
) -> int:
    """The most examples within the budget by the fitted model, as far as no measurement contradicts it.

    Args:
      points: the measured (micro-batch, peak bytes), in ascending order.
      budget_bytes: None if unknown; then the result is the largest size that was measured.
      limit: the largest size that is useful.
      exhausted: whether memory ran out at a size after the last point, so that the model is unreliable there.

    Returns:
      The number of examples; 0 if none fits.
    """
    fitting = [batch for batch, size in points if budget_bytes is None or size <= budget_bytes]
    if not fitting:
        return 0
    most = max(fitting)
    if budget_bytes is None or exhausted:
        return most
    too_large = [batch - 1 for batch, _ in points if batch > most]
    return min(limit, *too_large, max(most, MemoryModel.fit(points).largest(budget_bytes)))


def next_micro_batch(
    points: Sequence[tuple[int, int]], *, resting_bytes: int, budget_bytes: int | None, limit: int
) -> int | None:
    """The micro-batch to measure next: twice the last one, or the largest that should still fit.

    Args:
      points: the measured (micro-batch, peak bytes), in ascending order; at least one.
      resting_bytes: memory between steps. After the first measurement it is used for a step of 0 examples.
        Such a step would need more, so the second size is rather too small than too large.
      budget_bytes: None if unknown.
      limit: the largest size that is useful.

    Returns:
      The size; None if no other size is useful.
    """
    last, peak = points[-1]
    allowed = limit
    if budget_bytes is not None:
        known = [(0, min(resting_bytes, peak)), *points] if len(points) == 1 else points
        allowed = min(limit, MemoryModel.fit(known).largest(budget_bytes) if peak <= budget_bytes else 0)
    # A size that the budget limited is the last one; otherwise sizes would go on rising by one example.
    was_cut = len(points) > 1 and last < 2 * points[-2][0]
    following = min(2 * last, allowed)
    return following if following > last and not was_cut else None
