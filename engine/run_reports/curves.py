"""The curves of runs: which panels there are, and the points of each line."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.run_reports import quantities
from engine.run_reports.quantities import DETAILS, QUALITY, Quantity
from engine.run_reports.run_record import RunRecord, is_number

GROUPS = (QUALITY, quantities.LOSSES, quantities.SCHEDULE, DETAILS)
MOST_POINTS = 40_000
"""Of all lines together, more or less: a page of them has about one megabyte."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
      run: index of the run.
      x: positions in examples, rising.
      y: a value for each.
    """

    run: int
    x: Sequence[int]
    y: Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines of one quantity, one for each run that logged it.

    Attributes:
      quantity: what is shown.
      lines: in the order of the runs.
    """

    quantity: Quantity
    lines: Sequence[Line]


def panels(runs: Sequence[RunRecord]) -> list[Panel]:
    """All panels of some runs, in the order of GROUPS."""
    found = [*_metric_panels(runs), *_training_panels(runs)]
    found.sort(key=lambda panel: GROUPS.index(panel.quantity.group))
    most = max(50, MOST_POINTS // max(1, sum(len(panel.lines) for panel in found)))
    return [
        dataclasses.replace(panel, lines=[_thinned(line, panel.quantity, most) for line in panel.lines])
        for panel in found
    ]


def _metric_panels(runs: Sequence[RunRecord]) -> list[Panel]:
    splits = _in_order(str(row["split"]) for run in runs for row in run.evaluations)
    keys = _in_order(
        key for run in runs for row in run.evaluations for key in row if key.startswith("metric/")
    )
    keys.sort(key=lambda key: not quantities.is_main_metric(key))
    found = []
    for split, key in itertools.product(splits, keys):
        name = key.removeprefix("metric/")
        title, unit = quantities.metric_title(name, among=keys)
        quantity = Quantity(
            title=f"{title} on {split}",
            unit=unit,
            group=QUALITY if quantities.is_main_metric(name) else DETAILS,
        )
        rows = [[row for row in run.evaluations if row["split"] == split] for run in runs]
        panel = _panel(quantity, rows, key)
        if any(len(line.x) > 1 for line in panel.lines):  # a single value is in the table of metrics
            found.append(panel)
    return found


def _training_panels(runs: Sequence[RunRecord]) -> list[Panel]:
    rows = [_with_one_learning_rate(run.rows) for run in runs]
    if len({_learning_rate_keys(each) for each in rows if each}) > 1:
        rows = [run.rows for run in runs]
    found = []
    for key in _in_order(key for each in rows for row in each for key in row):
        quantity = quantities.training_quantity(key)
        panel = _panel(quantity, rows, key) if quantity else None
        if panel is None or not panel.lines:
            continue
        never_changes = all(len(set(line.y)) == 1 for line in panel.lines)
        if key in ("accumulation", "replicas", "skipped_steps") and never_changes:
            continue
        found.append(panel)
    return found


def _learning_rate_keys(rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(key for row in rows for key in row if key.startswith("learning_rate"))


def _with_one_learning_rate(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows with the key "learning_rate" alone, if all phases always have the same."""
    merged = []
    for row in rows:
        rates = {value for key, value in row.items() if key.startswith("learning_rate/")}
        if len(rates) > 1:
            return rows
        others = {key: value for key, value in row.items() if not key.startswith("learning_rate/")}
        merged.append(others | ({"learning_rate": rates.pop()} if rates else {}))
    return merged


def _panel(quantity: Quantity, rows: Sequence[Sequence[Mapping[str, Any]]], key: str) -> Panel:
    lines = []
    for run, own in enumerate(rows):
        points = [(row["examples"], row[key] * quantity.scale) for row in own if is_number(row.get(key))]
        if points:
            lines.append(Line(run=run, x=[x for x, _ in points], y=[y for _, y in points]))
    return Panel(quantity=quantity, lines=lines)


def _thinned(line: Line, quantity: Quantity, most: int) -> Line:
    """A line of about `most` points at most, which keeps each peak, or each change of a step."""
    if quantity.is_step:
        kept = [
            n
            for n in range(len(line.y))
            if n in (0, len(line.y) - 1) or line.y[n] != line.y[n - 1] or line.y[n] != line.y[n + 1]
        ]
    elif len(line.x) <= most:
        return line
    else:
        buckets = max(1, most // 2)
        edges = [len(line.x) * n // buckets for n in range(buckets + 1)]
        extremes = {0, len(line.x) - 1}
        for first, last in itertools.pairwise(edges):
            extremes.add(min(range(first, last), key=line.y.__getitem__))
            extremes.add(max(range(first, last), key=line.y.__getitem__))
        kept = sorted(extremes)
    return Line(run=line.run, x=[line.x[n] for n in kept], y=[line.y[n] for n in kept])


def _in_order(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(keys))
