"""Confidence intervals of means and other statistics over images, by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 9999
_VALUES_AT_ONCE = 10_000_000  # memory of the resamples: 80 MB

Interval = tuple[float, float]
"""Lowest and highest plausible value of a mean."""


def mean_interval(values: np.ndarray) -> Interval | None:
    """The 95 % confidence interval of the mean over images: see `statistic_interval`.

    Args:
      values: one for each image, [N].

    Returns:
      None for fewer than two values. If all are equal, both ends are that value.
    """
    if len(values) >= 2 and np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return statistic_interval([values], np.mean)


def statistic_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]
) -> Interval | None:
    """The 95 % confidence interval of a statistic: bias-corrected and accelerated bootstrap.

    The images are taken as a random sample of those that the networks may meet; the networks are fixed. The
    same values give the same interval.

    Source: Efron 1987 (doi:10.1080/01621459.1987.10478410), as in `scipy.stats.bootstrap`.

    Args:
      samples: quantities of the images, [N] each.
      statistic: maps them, with `axis`, the axis of the images, to its values without it.

    Returns:
      None for fewer than two images, or if there is none, as where the statistic is always the same.
    """
    count = len(samples[0])
    if count < 2:
        return None
    from scipy.stats import bootstrap  # half a second, which training need not wait for

    result = bootstrap(
        tuple(samples),
        statistic,
        paired=len(samples) > 1,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // count),
        method="BCa",
        rng=np.random.default_rng(0),
    )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return (low, high) if np.isfinite([low, high]).all() else None
