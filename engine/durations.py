"""Durations as a user writes them.

Of training: `4000`, `"4000ex"`, `"20ep"`, or `"50%"` of the run; of time: `"8h30m"`.
"""

from __future__ import annotations

import re

from engine.errors import ConfigurationError

Duration = int | str

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ex|ep|%)?\s*")
_TIME = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def examples_of(
    duration: Duration, *, examples_per_epoch: int, name: str, total_examples: int | None = None
) -> int:
    """Converts a duration of training to examples.

    Args:
      duration: a number of examples, or a string with a unit: "4000ex" for examples, "20ep" for epochs, "50%"
        for a part of the run.
      examples_per_epoch: training examples in one epoch.
      name: of the setting, for the error message.
      total_examples: of the run; None if the duration may not be relative to the run.

    Raises:
      ConfigurationError: it is not a number, has an unknown unit, or is a negative or fractional number of
        examples.
    """
    match = _PATTERN.fullmatch(duration) if isinstance(duration, str) else None
    if match:
        number, unit = float(match[1]), match[2] or "ex"
        if unit == "%" and total_examples is not None:
            return round(number * total_examples / 100)
        if unit == "ep" or (unit == "ex" and number == int(number)):
            return round(number * (examples_per_epoch if unit == "ep" else 1))
    elif isinstance(duration, int) and not isinstance(duration, bool) and duration >= 0:
        return duration
    relative = "" if total_examples is None else ", or a part of the run as '50%'"
    raise ConfigurationError(
        f"{name} = {duration!r}: not a length of training{_hint(duration, total_examples)}; write whole "
        f"examples as 4000 or '4000ex', or epochs as '20ep'{relative}"
    )


def is_relative(duration: Duration) -> bool:
    """Whether a duration is a part of the run, such as "50%"."""
    return isinstance(duration, str) and duration.strip().endswith("%")


def _hint(duration: Duration, total_examples: int | None) -> str:
    if is_relative(duration) and total_examples is None:
        return " here (only lengths of a learning-rate schedule may be parts of the run)"
    return ""


def seconds_of(time: str, *, name: str) -> int:
    """Converts a time such as "8h30m", "2d", "90m" or "45s" to seconds.

    Args:
      time: days, hours, minutes and seconds, in this order; each may be missing.
      name: of the setting, for the error message.

    Raises:
      ConfigurationError: it is not a time, or it is 0.
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
