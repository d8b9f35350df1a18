"""Lengths of training in examples: plain integers, `"4000ex"` or `"20ep"`; and of time: `"8h30m"`."""

from __future__ import annotations

import re

from engine.errors import ConfigurationError

Duration = int | str

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ex|ep)?\s*")
_TIME = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


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


def seconds_of(time: str, *, name: str) -> int:
    """Converts a time such as "8h30m", "2d", "90m" or "45s" to seconds.

    Raises:
      ConfigurationError: it is none, or 0.
    """
    match = _TIME.fullmatch(time)
    seconds = 0
    if match:
        days, hours, minutes, rest = (int(number or 0) for number in match.groups())
        seconds = ((24 * days + hours) * 60 + minutes) * 60 + rest
    if not seconds:
        raise ConfigurationError(
            f"{name} = {time!r}: not a time; write days, hours, minutes and seconds as '8h30m', '2d' or '45s'"
        )
    return seconds
