"""Lengths of training in examples: plain integers, `"4000ex"` or `"20ep"`."""

from __future__ import annotations

import re

from engine.task import ConfigurationError

Duration = int | str

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ex|ep)?\s*")


def examples_of(duration: Duration, *, examples_per_epoch: int, name: str) -> int:
    """Converts a duration to examples.

    Args:
      duration: examples as an integer, or a string with a unit: "4000ex" examples, "20ep" epochs.
      examples_per_epoch: training examples in one epoch.
      name: what is being set, for the error message.

    Raises:
      ConfigurationError: not a number, an unknown unit, a negative or fractional number of examples.
    """
    match = _PATTERN.fullmatch(duration) if isinstance(duration, str) else None
    if match:
        number, unit = float(match[1]), match[2] or "ex"
        examples = number * (examples_per_epoch if unit == "ep" else 1)
        if unit == "ep" or examples == int(examples):
            return round(examples)
    elif isinstance(duration, int) and not isinstance(duration, bool) and duration >= 0:
        return duration
    raise ConfigurationError(
        f"{name} = {duration!r}: not a length of training; write whole examples as 4000 or '4000ex', "
        "or epochs as '20ep'"
    )
