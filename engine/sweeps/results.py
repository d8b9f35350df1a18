"""The results of a sweep as a table: one row for each run."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence

from data import gfile
from engine.run_reports import quantities
from engine.run_reports.run_record import RunRecord, is_number, read_run
from engine.storage.run_directory import RunDirectory
from engine.sweeps.run_state import PlannedRun
from engine.sweeps.sweep import Outcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A run of a sweep and what its files say.

    Attributes:
      run: as planned.
      outcome: what became of it.
      record: its files; None if it has not begun.
      metrics: its last evaluation on the split of the sweep, by name; empty if there is none.
    """

    run: PlannedRun
    outcome: Outcome
    record: RunRecord | None
    metrics: Mapping[str, float]


def read_results(
    runs: Sequence[PlannedRun], outcomes: Mapping[str, Outcome], *, split: str = ""
) -> list[Result]:
    """Reads what the runs have written.

    Args:
      runs: of the sweep.
      outcomes: of each, by name.
      split: whose metrics are read; empty: the one that training evaluates on.
    """
    results = []
    for run in runs:
        name = run.point.name
        directory = RunDirectory(run.workdir)
        begun = gfile.exists(directory.config) or gfile.exists(directory.train_log)
        record = read_run(run.workdir, name) if begun else None
        results.append(
            Result(
                run=run,
                outcome=outcomes[name],
                record=record,
                metrics=_metrics(record, split) if record else {},
            )
        )
    return results


def _metrics(record: RunRecord, split: str) -> dict[str, float]:
    evaluations = record.last_evaluations()
    if not split:  # engine.evaluate adds other splits, the training only one
        split = next(iter(evaluations), "")
    return {
        key.removeprefix("metric/"): value
        for key, value in evaluations.get(split, {}).items()
        if key.startswith("metric/") and is_number(value)
    }


def main_metrics(results: Sequence[Result]) -> list[str]:
    """The metrics of the text table and of the plots, at most three."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    main = [name for name in names if quantities.is_main_metric(name)]
    return (main or names)[:3]


def examples_per_sec(record: RunRecord | None) -> float | None:
    """The median speed of a run; None if no row tells it."""
    rows = record.rows if record else ()
    speeds = [row["examples_per_sec"] for row in rows if is_number(row.get("examples_per_sec"))]
    return statistics.median(speeds) if speeds else None


def text_table(results: Sequence[Result], *, axes: Sequence[str]) -> str:
    """The table as text; the best value of each metric among complete runs has a star.

    Args:
      results: one for each row.
      axes: names of what varies.
    """
    names = main_metrics(results)
    titles = [quantities.metric_title(name, among=names) for name in names]
    head = [*axes, "state", "examples", *(f"{title} {unit}".strip() for title, unit in titles), "examples/s"]
    stars = {name: _best(results, name) for name in names}
    rows = []
    for result in results:
        speed = examples_per_sec(result.record)
        rows.append(
            [
                *(result.run.point.labels[axis] for axis in axes),
                result.outcome.state,
                f"{result.record.examples:,}" if result.record else "",
                *(_cell(result, name, stars[name]) for name in names),
                f"{speed:.1f}" if speed else "",
            ]
        )
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    is_text = [n <= len(axes) for n in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]
    lines += [
        f"{result.run.point.name}: {result.outcome.state}: {result.outcome.detail}"
        for result in results
        if result.outcome.detail
    ]
    return "\n".join(lines)


def _best(results: Sequence[Result], name: str) -> float | None:
    values = [result.metrics[name] for result in results if _counts(result) and name in result.metrics]
    higher = quantities.is_higher_better(name)
    if len(values) < 2 or higher is None:
        return None
    return max(values) if higher else min(values)


def _counts(result: Result) -> bool:
    return result.record is not None and result.record.state == "complete"


def _cell(result: Result, name: str, best: float | None) -> str:
    if name not in result.metrics:
        return ""
    value = result.metrics[name]
    return quantities.metric_text(name, value) + ("*" if _counts(result) and value == best else " ")


def csv_table(results: Sequence[Result], *, axes: Sequence[str]) -> str:
    """The table as CSV, with every metric at full precision."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *axes, "state", "detail", "examples", "step", "examples_per_sec", *names])
    for result in results:
        last = result.record.rows[-1] if result.record and result.record.rows else {}
        writer.writerow(
            [
                result.run.point.name,
                *(result.run.point.labels[axis] for axis in axes),
                result.outcome.state,
                result.outcome.detail,
                last.get("examples", ""),
                last.get("step", ""),
                examples_per_sec(result.record) or "",
                *(result.metrics.get(name, "") for name in names),
            ]
        )
    return file.getvalue()
