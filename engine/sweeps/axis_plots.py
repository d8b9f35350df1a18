"""A plot for each axis of a sweep: the metrics of its complete runs over the values of the axis."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes

from engine.run_reports import quantities
from engine.run_reports.plots import COLOURS, DASHES, new_figure, tidy, write_figure
from engine.sweeps.points import Axis
from engine.sweeps.results import Result, main_metrics

_LOG_FROM = 8
"""Values whose largest is so many times the smallest are shown on a logarithmic axis."""
_MOST_KEYS = 16


def write_axis_plots(axes: Sequence[Axis], results: Sequence[Result], directory: str) -> list[str]:
    """Writes by_NAME.png for each axis with several values; returns the paths.

    Args:
      axes: of the sweep.
      results: of its runs; those that are not complete are left out.
      directory: to write to.
    """
    complete = [result for result in results if result.metrics and result.record]
    complete = [result for result in complete if result.record and result.record.state == "complete"]
    names = main_metrics(complete)
    paths = []
    for axis in axes:
        if len(axis.choices) > 1 and names:
            path = os.path.join(directory, f"by_{axis.name.replace('/', '_')}.png")
            _write(path, axis, axes, complete, names)
            paths.append(path)
    return paths


def _write(
    path: str, axis: Axis, axes: Sequence[Axis], results: Sequence[Result], names: Sequence[str]
) -> None:
    labels = [choice.label for choice in axis.choices]
    places, is_log = _places(labels)
    others = [other.name for other in axes if other.name != axis.name]
    lines: dict[str, list[Result]] = {}
    for result in results:
        key = ", ".join(f"{other} = {result.run.point.labels[other]}" for other in others)
        lines.setdefault(key, []).append(result)
    figure = new_figure(width_inches=6.4, height_inches=0.9 + 2.3 * len(names))
    plots = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for plot, name in zip(plots, names, strict=True):
        for n, (key, own) in enumerate(lines.items()):
            points = sorted(
                (places[labels.index(result.run.point.labels[axis.name])], result.metrics[name])
                for result in own
                if name in result.metrics
            )
            plot.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=COLOURS[n % len(COLOURS)],
                linestyle=DASHES[n // len(COLOURS) % len(DASHES)],
                marker="o",
                markersize=4,
                linewidth=1.4,
                label=key.replace("$", r"\$"),
            )
        title, unit = quantities.metric_title(name, among=names)
        plot.set_title(f"{title}, {unit}" if unit else title, loc="left", fontsize=9)
        tidy(plot)
    _label(plots[-1], axis.name, labels, places, is_log=is_log)
    if others and len(lines) <= _MOST_KEYS:
        handles = plots[0].get_lines()
        figure.legend(handles, list(lines), loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    write_figure(path, figure)


def _places(labels: Sequence[str]) -> tuple[list[float], bool]:
    """Where each value stands on the axis, and whether that is logarithmic; else they stand side by side."""
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return [float(n) for n in range(len(labels))], False
    is_log = min(values) > 0 and max(values) >= _LOG_FROM * min(values)
    return values, is_log


def _label(plot: Axes, name: str, labels: Sequence[str], places: Sequence[float], *, is_log: bool) -> None:
    if is_log:
        plot.set_xscale("log")
    plot.minorticks_off()
    plot.set_xticks(list(places), [_shortened(label) for label in labels])
    plot.set_xlabel(name.replace("$", r"\$"), fontsize=9)


def _shortened(label: str) -> str:
    label = label.replace("$", r"\$")
    return label if len(label) <= 24 else f"{label[:21]}..."
