"""The curves of runs as PNG files."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from engine.run_reports.curves import Panel
from engine.run_reports.quantities import DETAILS, LOSSES, QUALITY, SCHEDULE
from engine.run_reports.run_record import RunRecord
from engine.storage.file_errors import reraise_write_errors

COLOURS = ("#1f5fbf", "#c8500a", "#1d7a3e", "#8a3fa0", "#a8741a", "#0f7c86", "#b3294e", "#5f6570")
DASHES = ("-", "--", ":", "-.")
_FILES = {
    "quality.png": (QUALITY, SCHEDULE),
    "losses.png": (LOSSES, SCHEDULE),
    "details.png": (DETAILS,),
}
_MOST_KEYS = 24


def write_plots(runs: Sequence[RunRecord], panels: Sequence[Panel], directory: str) -> list[str]:
    """Writes the panels of each group above each other, on one axis of examples; returns the paths."""
    paths = []
    for name, groups in _FILES.items():
        shown = [panel for group in groups for panel in panels if panel.quantity.group == group]
        if any(panel.quantity.group == groups[0] for panel in shown):
            path = os.path.join(directory, name)
            write_figure(path, _figure(runs, shown))
            paths.append(path)
    return paths


def _figure(runs: Sequence[RunRecord], panels: Sequence[Panel]) -> Figure:
    figure = new_figure(width_inches=8.0, height_inches=1.0 + 1.35 * len(panels))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        quantity = panel.quantity
        for line in panel.lines:
            x, y = list(line.x), list(line.y)
            if quantity.is_step:  # a row tells of the step that ended there
                x, y = [0, *x], [y[0], *y]
            axis.plot(
                x,
                y,
                color=COLOURS[line.run % len(COLOURS)],
                linestyle=DASHES[line.run // len(COLOURS) % len(DASHES)],
                linewidth=1.4,
                marker="o" if len(x) == 1 else None,
                markersize=3,
                drawstyle="steps-pre" if quantity.is_step else "default",
            )
        if quantity.group == SCHEDULE:
            axis.set_ylim(bottom=0)
        title = f"{quantity.title}, {quantity.unit}" if quantity.unit else quantity.title
        axis.set_title(_plain(title), loc="left", fontsize=9)
        tidy(axis)
    axes[-1].set_xlim(left=0)
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[-1].set_xlabel("training examples", fontsize=9)
    if 1 < len(runs) <= _MOST_KEYS:
        keys = [
            axes[0].plot([], [], color=COLOURS[n % len(COLOURS)], linestyle=DASHES[n // len(COLOURS) % 4])[0]
            for n in range(len(runs))
        ]
        names = [_plain(run.name) for run in runs]
        figure.legend(keys, names, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def new_figure(*, width_inches: float, height_inches: float) -> Figure:
    """An empty figure that belongs to no window."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axis: Axes) -> None:
    """Takes away what does not tell anything."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e3e4e1", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, length=3)


def write_figure(path: str, figure: Figure) -> None:
    """Writes a figure as PNG.

    Raises:
      ConfigurationError: it cannot be written.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png")
    with reraise_write_errors(path), tf.io.gfile.GFile(path, "wb") as target:
        target.write(file.getvalue())


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
