"""Flags that are two numbers, such as 352x288."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from data.errors import DataError

_Number = TypeVar("_Number", int, float)


def parse_pair(
    name: str, text: str | None, separator: str, number: Callable[[str], _Number]
) -> tuple[_Number, _Number] | None:
    """The two numbers of a flag; None if it is not given.

    Args:
      name: of the flag, without the dashes.
      text: its value.
      separator: between the numbers.
      number: int or float.

    Raises:
      DataError: the value is something else.
    """
    if text is None:
        return None
    try:
        first, second = map(number, text.split(separator))
    except ValueError as error:
        raise DataError(f"--{name}={text}: must be two numbers such as 1{separator}2; change it") from error
    return first, second
