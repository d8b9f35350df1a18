"""Hints where images are stored with a value range, or are interpolated, as nobody may have meant it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from data.imaging.value_statistics import Extreme, ValueStatistics
from data.preparation.image_formats import ValueRange
from data.roles import SIDE_MAP
from data.tfrecords.image_encoding import StoredFormat

_DEPTHS_BITS = (8, 10, 12, 14, 15)
_MOST_CLASSES = 64
"""8-bit images without a value of that size are probably class ids."""
_FEW_VALUES = 16
"""Images of fewer distinct values are masks or classes: a wide gap between two of them is no surprise."""
_MOST_LABEL_VALUES = 32
"""Images of integers with at most so many distinct values are probably labels."""
_CORE_PERCENTS = (0.1, 99.9)
_CORE_FRACTION = 0.25
"""If the core, between the percentiles, takes less than this part of the range, the rest are outliers."""


def value_hints(
    formats: Mapping[str, StoredFormat],
    statistics: Mapping[str, ValueStatistics],
    *,
    given: Mapping[str, ValueRange],
) -> list[str]:
    """Returns a line for each feature whose value range does not look intended, and how to mend it.

    Args:
      formats: feature -> how its images are stored.
      statistics: feature -> the values of its images.
      given: features whose range the user gave, which is taken as intended.
    """
    lines, suggested = [], {}
    for feature, stored in formats.items():
        values = statistics.get(feature)
        if feature in given or values is None or values.lowest is None or values.highest is None:
            continue
        if line := _far_extreme(feature, values):
            lines.append(line)
        elif (high := _suggested_high(stored, values.highest.value)) is not None:
            suggested[feature] = high
        elif line := _outliers(feature, stored, values):
            lines.append(line)
    flag = _flag(formats, suggested)
    for feature, high in suggested.items():
        highest, whole = statistics[feature].highest, formats[feature].value_range[1]
        assert highest is not None, "it was suggested for this value"
        what = "class ids" if formats[feature].dtype == "uint8" else f"values of {high.bit_length()} bits"
        lines.append(
            f"{feature}: the highest value is {highest.value:g}, but {whole:g} is taken for white; if the "
            f"images hold {what}, prepare them again with {flag}"
        )
    return lines


def label_hints(
    formats: Mapping[str, StoredFormat],
    statistics: Mapping[str, ValueStatistics],
    *,
    labels: Collection[str],
) -> list[str]:
    """Returns a line for each feature whose few values are probably classes, and how to declare that.

    Args:
      formats: feature -> how its images are stored.
      statistics: feature -> the values of its images.
      labels: features that are declared already.
    """
    flags = {"A": "--labels=A", "B": "--labels=B", SIDE_MAP: "--side_map_kind=classes"}
    lines = []
    for feature, values in statistics.items():
        if feature in labels or feature not in flags or not formats[feature].dtype.startswith("uint"):
            continue
        if values.size and 1 < (distinct := values.distinct()) <= _MOST_LABEL_VALUES:
            lines.append(
                f"{feature}: has only {distinct} different values, which resizing mixes; if those are "
                f"classes, prepare it again with {flags[feature]}"
            )
    return lines


def _far_extreme(feature: str, values: ValueStatistics) -> str | None:
    """The hint if the lowest or highest value is farther from all others than those from each other."""
    lowest, highest = values.lowest, values.highest
    assert lowest is not None and highest is not None
    if values.distinct() < _FEW_VALUES:
        return None
    for extreme, other in ((lowest, highest), (highest, lowest)):
        if abs(extreme.next - extreme.value) > abs(other.value - extreme.next):
            low, high = sorted((extreme.next, other.value))
            return (
                f"{feature}: {_share(extreme, values.size)} {extreme.value:g} and all others {low:g} to "
                f"{high:g}, so it is probably a no-data value; replace it in the files and prepare them again"
            )
    return None


def _share(extreme: Extreme, size: int) -> str:
    """How many values are the extreme: "3.1 % of the values are", "1 of 5000 values is"."""
    percent = 100 * extreme.times / size
    share = f"{percent:.2g} % of the" if percent >= 0.1 else f"{extreme.times} of {size}"
    return f"{share} values {'is' if extreme.times == 1 else 'are'}"


def _suggested_high(stored: StoredFormat, highest: float) -> int | None:
    """The highest value that integers probably mean as white, if that is less than their dtype's."""
    if stored.dtype == "uint8" and stored.value_range == (0, 255) and 1 <= highest < _MOST_CLASSES:
        return int(highest)
    if stored.dtype == "uint16" and stored.value_range == (0, 65535) and highest >= 1:
        return next((2**bits - 1 for bits in _DEPTHS_BITS if highest < 2**bits), None)
    return None


def _outliers(feature: str, stored: StoredFormat, values: ValueStatistics) -> str | None:
    """The hint if almost all values take a small part of the range."""
    if stored.dtype == "uint8":
        return None
    low, high = stored.value_range
    core_low, core_high = values.percentiles(*_CORE_PERCENTS)
    if not core_high - core_low < _CORE_FRACTION * (high - low) or core_low == core_high:
        return None
    return (
        f"{feature}: {_CORE_PERCENTS[1] - _CORE_PERCENTS[0]:g} % of the values are {core_low:g} to "
        f"{core_high:g}, a small part of {low:g} to {high:g}; if the others are mistakes, clip them in the "
        "files and prepare them again"
    )


def _flag(formats: Mapping[str, StoredFormat], suggested: Mapping[str, int]) -> str:
    """The flag that gives all suggested ranges."""
    dtypes = {formats[feature].dtype for feature in suggested}
    same = {name for name, stored in formats.items() if stored.dtype in dtypes}
    if len(set(suggested.values())) == 1 and same == suggested.keys() and SIDE_MAP not in same:
        return f"--value_range=0,{next(iter(suggested.values()))}"
    ranges = ";".join(f"{feature}:0,{high}" for feature, high in suggested.items())
    return f"'--value_range={ranges}'"
