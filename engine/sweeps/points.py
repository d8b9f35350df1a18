"""From grids and cases to the runs of a sweep: the settings and the name of each."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from engine.errors import ConfigurationError

CASE = "case"
"""Name of the axis of the cases."""
_LONGEST_NAME = 120
_NAMED_CASE = re.compile(r"\s*([\w.+-]+)\s*:(?!//)(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of an axis.

    Attributes:
      label: what it is called in names and tables.
      gin_files: files that it adds.
      gin_params: overrides that it adds, such as "BATCH_SCHEDULE = 4".
    """

    label: str
    gin_files: tuple[str, ...] = ()
    gin_params: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """What varies, and the values it takes.

    Attributes:
      name: of the setting, or CASE.
      choices: the values.
    """

    name: str
    choices: Sequence[Choice]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep.

    Attributes:
      name: of its run directory.
      labels: the label of its value on each axis, by the name of the axis.
      gin_files, gin_params: what its values add to those that all runs have.
    """

    name: str
    labels: Mapping[str, str]
    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...]


def parse_grid(text: str) -> Axis:
    """An axis of one setting, such as "BATCH_SCHEDULE = [1, 4]", whose values are gin text.

    Raises:
      ConfigurationError: it is not a list, is empty, or names a value twice.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not (name and equals and values.startswith("[") and values.endswith("]")):
        raise ConfigurationError(
            f"--grid={text!r}: is not NAME = [VALUE, ...]; write for example 'BATCH_SCHEDULE = [1, 4]'"
        )
    found = [value for value in split_outside_quotes(values[1:-1], ",") if value]
    if not found or len(set(found)) < len(found):
        raise ConfigurationError(f"--grid={text!r}: has no value, or one twice; give each value once")
    return Axis(
        name=name,
        choices=[Choice(label=value.strip("'\""), gin_params=(f"{name} = {value}",)) for value in found],
    )


def parse_case(text: str) -> Choice:
    """Settings that vary together, such as "small: LOAD_SIZE = 72; CROP_SIZE = 64".

    A part that ends in ".gin" is a file. The name and the settings may be left out.
    """
    match = _NAMED_CASE.fullmatch(text)
    label, rest = match.groups() if match else ("", text)
    parts = [part for part in split_outside_quotes(rest, ";") if part]
    files = tuple(part for part in parts if part.endswith(".gin") and "=" not in part)
    params = tuple(part for part in parts if part not in files)
    wrong = next((part for part in params if "=" not in part), None)
    if wrong is not None:
        raise ConfigurationError(
            f"--case={text!r}: {wrong!r} is neither NAME = VALUE nor a .gin file; correct it"
        )
    if not label:
        words = [file.rpartition("/")[2].removesuffix(".gin") for file in files]
        words += [f"{_short(name)}={_slug(value)}" for name, _, value in (p.partition("=") for p in params)]
        label = ",".join(words) or "as_given"
    return Choice(label=label, gin_files=files, gin_params=params)


def points(*, grids: Sequence[str], cases: Sequence[str]) -> tuple[list[Axis], list[Point]]:
    """The axes of a sweep, and a run for each combination of their values.

    Args:
      grids: texts for `parse_grid`, each an axis of its own.
      cases: texts for `parse_case`, which together are one axis.

    Raises:
      ConfigurationError: there is none, or one cannot be used.
    """
    axes = [parse_grid(text) for text in grids]
    if cases:
        axes.append(Axis(name=CASE, choices=[parse_case(text) for text in cases]))
    if not axes:
        raise ConfigurationError(
            "no --grid and no --case given; say what varies: --grid='BATCH_SCHEDULE = [1, 4]'"
        )
    for what, names in (
        ("--grid", [axis.name for axis in axes]),
        ("--case", [choice.label for axis in axes if axis.name == CASE for choice in axis.choices]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ConfigurationError(f"{what}: {twice[0]!r} is given twice; remove one")
    combinations = list(itertools.product(*(axis.choices for axis in axes)))
    names = _names(axes, combinations)
    return axes, [
        Point(
            name=name,
            labels={axis.name: choice.label for axis, choice in zip(axes, choices, strict=True)},
            gin_files=tuple(file for choice in choices for file in choice.gin_files),
            gin_params=tuple(param for choice in choices for param in choice.gin_params),
        )
        for name, choices in zip(names, combinations, strict=True)
    ]


def _names(axes: Sequence[Axis], combinations: Sequence[Sequence[Choice]]) -> list[str]:
    """A readable name for each combination; a digest follows where that is too long or not the only one."""
    names = [
        ",".join(
            _slug(choice.label) if axis.name == CASE else f"{_short(axis.name)}={_slug(choice.label)}"
            for axis, choice in zip(axes, choices, strict=True)
        )
        for choices in combinations
    ]
    counts = Counter(name.lower() for name in names)  # some file systems do not tell A from a
    for n, choices in enumerate(combinations):
        if counts[names[n].lower()] > 1 or len(names[n]) > _LONGEST_NAME:
            digest = hashlib.sha256(repr([(c.gin_files, c.gin_params) for c in choices]).encode()).hexdigest()
            names[n] = f"{names[n][:_LONGEST_NAME]}-{digest[:8]}"
    return names


def _short(name: str) -> str:
    """The last two parts of the name of a setting."""
    return ".".join(name.strip().rpartition("/")[2].split(".")[-2:])


def _slug(value: str) -> str:
    return re.sub(r"[^\w.+=,-]+", "-", value.strip().strip("'\"")).strip("-") or "empty"


def split_outside_quotes(text: str, separator: str) -> list[str]:
    """Splits gin text at a character, but not inside quotes or brackets; the parts are stripped."""
    parts, start = [], 0
    for n in _outside(text, separator):
        parts.append(text[start:n].strip())
        start = n + 1
    return [*parts, text[start:].strip()]


def _outside(text: str, separator: str) -> Iterator[int]:
    depth, quote, escaped = 0, "", False
    for n, character in enumerate(text):
        if quote:
            if character == quote and not escaped:
                quote = ""
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and not depth:
            yield n
