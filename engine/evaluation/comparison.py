"""Compares two evaluations of the same images, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.imaging.metric_names import higher_is_better
from engine.errors import ConfigurationError
from engine.evaluation.intervals import Interval, mean_interval
from engine.evaluation.results import SplitEvaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean difference of a metric, the second evaluation minus the first.

    Attributes:
      metric: its name.
      first: mean of the first evaluation.
      second: mean of the second.
      mean: of the differences image by image.
      interval: 95 % confidence interval of `mean`; None for a single image.
      second_better: share of the images for which the second is better.
    """

    metric: str
    first: float
    second: float
    mean: float
    interval: Interval | None
    second_better: float

    @property
    def verdict(self) -> str:
        """Which of the two is better: "first", "second", or "undecided" if the interval contains 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "undecided"
        return "second" if (self.mean > 0) == higher_is_better(self.metric) else "first"


def compare(first: SplitEvaluation, second: SplitEvaluation, *, names: tuple[str, str]) -> list[Difference]:
    """Compares two evaluations of the same images by every metric that both have.

    Pairing removes what makes an image easy or hard for both, so it can tell runs apart whose own intervals
    overlap.

    Args:
      first: an evaluation.
      second: another one.
      names: of the two, for messages.

    Raises:
      ConfigurationError: they are of different images, or on different ranges, or have no metric in common.
    """
    if (first.examples, first.names) != (second.examples, second.names):
        raise ConfigurationError(
            f"{names[0]} and {names[1]}: were evaluated on different images; choose runs of the same "
            "data set, and the same --split"
        )
    if first.scale != second.scale:
        raise ConfigurationError(
            f"{names[0]} and {names[1]}: measure on different ranges, {first.scale} and {second.scale}; "
            "choose runs of one data set"
        )
    values, others = first.image_values, second.image_values
    differences = [_difference(name, values[name], others[name]) for name in values if name in others]
    if not differences:
        raise ConfigurationError(
            f"{names[0]} and {names[1]}: have no metric in common; compare runs of one task"
        )
    return differences


def _difference(metric: str, first: np.ndarray, second: np.ndarray) -> Difference:
    difference = second - first
    better = difference > 0 if higher_is_better(metric) else difference < 0
    return Difference(
        metric=metric,
        first=float(np.mean(first)),
        second=float(np.mean(second)),
        mean=float(np.mean(difference)),
        interval=mean_interval(difference),
        second_better=float(np.mean(better)),
    )


def comparison_table(differences: list[Difference], *, names: tuple[str, str]) -> str:
    """The comparison as a text table, one metric in each row."""
    lines = [
        f"A: {names[0]}",
        f"B: {names[1]}",
        f"{'':24}  {'A':>10}  {'B':>10}  {'B - A':>10}  {'95 % interval':>24}  {'B better':>8}  verdict",
    ]
    verdicts = {"first": "A is better", "second": "B is better", "undecided": "cannot tell"}
    for found in differences:
        interval = "" if found.interval is None else f"{found.interval[0]:+.4g} to {found.interval[1]:+.4g}"
        lines.append(
            f"{found.metric:24}  {found.first:10.5g}  {found.second:10.5g}  {found.mean:+10.4g}"
            f"  {interval:>24}  {100 * found.second_better:6.0f} %  {verdicts[found.verdict]}"
        )
    return "\n".join(lines)
