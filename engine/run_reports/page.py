"""The HTML page: one file without external resources, whose charts a small script draws from data in it."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.run_reports import tables
from engine.run_reports.curves import GROUPS, Panel
from engine.run_reports.image_scores import ImageScores
from engine.run_reports.quantities import DETAILS, SCHEDULE
from engine.run_reports.run_record import RunRecord
from engine.run_reports.sample_frames import Frame

_STYLE, _SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_SMALL_PIXELS = 500
"""Pictures that are narrower are enlarged without interpolation."""
_MOST_CHANGES = 20
"""Of the batch size, that are marked in each panel."""


def page(
    runs: Sequence[RunRecord],
    panels: Sequence[Panel],
    frames: Sequence[Sequence[Frame]],
    scores: Sequence[ImageScores],
) -> str:
    """The page about some runs.

    Args:
      runs: at least one.
      panels: their curves.
      frames: the sample grids of each run.
      scores: of single images, from evaluations that wrote them.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    sections = {
        "overview": ("", tables.overview(runs)),
        "curves": ("Curves", _curves(runs, panels)),
        "samples": ("Samples", _samples(runs, frames)),
        "metrics": ("Metrics", tables.metrics(runs)),
        "images": ("Single images", tables.single_images(scores)),
        "settings": ("Settings", tables.settings(runs)),
    }
    sections = {key: section for key, section in sections.items() if section[1]}
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in sections.items() if name)
    cards = "".join(_section(key, name, content) for key, (name, content) in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{html.escape(title)}: training report</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header class="top"><div>
<h1>{html.escape(title)}</h1>
<p class="subtitle">{_subtitle(runs)}</p>
<nav>{links}</nav>
</div></header>
<main>
{cards}<footer>Written by Gantry from the files of the run{"s" if len(runs) > 1 else ""}.
Positions count training examples.</footer>
</main>
<script type="application/json" id="data">{_data(runs, panels, frames)}</script>
<script>
{_SCRIPT.read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _section(key: str, name: str, content: str) -> str:
    if name:
        content = f'<h2>{name}</h2><div class="card">{content}</div>'
    return f'<section id="{key}">{content}</section>\n'


def _subtitle(runs: Sequence[RunRecord]) -> str:
    tasks = sorted({tables.task_of(run) for run in runs} - {""})
    datasets = sorted({tables.dataset_of(run) for run in runs} - {""})
    parts = [", ".join(tasks), f"trained on {', '.join(datasets)}" if datasets else ""]
    parts.append(f"as of {time.strftime('%Y-%m-%d %H:%M')}")
    return html.escape(" · ".join(filter(None, parts)))


def _curves(runs: Sequence[RunRecord], panels: Sequence[Panel]) -> str:
    if not panels:
        return '<p class="empty">No row has been logged yet.</p>'
    keys = '<span class="muted">Point at the curves to read their values.</span>'
    if len(runs) > 1:
        keys = "".join(
            f'<button type="button" data-run="{n}" aria-pressed="true">'
            f"{tables.key(n)}{tables.name_of(run)}</button>"
            for n, run in enumerate(runs)
        )
    bar = f'<div class="bar">{keys}<span class="where">last values</span></div>'
    shown = {
        group: [n for n, panel in enumerate(panels) if panel.quantity.group == group] for group in GROUPS
    }
    stack = "".join(
        _panel(n, panels[n], is_last=n == shown[group][-1])
        for group in GROUPS
        if group != DETAILS
        for n in shown[group]
    )
    note = ""
    if _changes(runs, panels):
        note = '<p class="muted">Dotted lines mark changes of the batch size.</p>'
    details = "".join(_panel(n, panels[n], is_last=False) for n in shown[DETAILS])
    if details:
        details = (
            f'<details><summary>More curves</summary><div class="panels details">{details}</div></details>'
        )
    return f'{bar}<div class="panels">{stack}</div>{note}{details}'


def _panel(number: int, panel: Panel, *, is_last: bool) -> str:
    quantity = panel.quantity
    unit = f' <span class="unit">({html.escape(quantity.unit)})</span>' if quantity.unit else ""
    title = html.escape(quantity.title)
    return (
        f'<figure class="panel{" last" if is_last else ""}" data-panel="{number}">'
        f'<figcaption><span>{title}{unit}</span><span class="values"></span></figcaption>'
        f'<svg role="img" aria-label="{title} over training examples"></svg></figure>'
    )


def _samples(runs: Sequence[RunRecord], frames: Sequence[Sequence[Frame]]) -> str:
    if not any(frames):
        return '<p class="empty">No sample grid has been written yet.</p>'
    positions = len({frame.examples for own in frames for frame in own})
    slider = (
        '<div class="slider"><input type="range" min="0" max="0" value="0" step="1" '
        'aria-label="Position in training">'
        f"<output>{max(frame.examples for own in frames for frame in own):,} examples</output></div>"
        if positions > 1
        else ""
    )
    grids = ""
    for n, (run, own) in enumerate(zip(runs, frames, strict=True)):
        if not own:
            continue
        last = own[-1]
        caption = f"<figcaption>{tables.key(n)}{tables.name_of(run)}</figcaption>" if len(runs) > 1 else ""
        grids += (
            f'<figure class="{"small" if last.width < _SMALL_PIXELS else ""}">{caption}'
            f'<img data-run="{n}" width="{last.width}" height="{last.height}" src="{last.source}" '
            f'alt="Samples of {html.escape(run.name)}"></figure>'
        )
    note = '<p class="muted">The same fixed examples at each position, one in each row.</p>'
    return f'{note}{slider}<div class="grids">{grids}</div>'


def _data(runs: Sequence[RunRecord], panels: Sequence[Panel], frames: Sequence[Sequence[Frame]]) -> str:
    """The data of the script as JSON that cannot end its element."""
    content: Mapping[str, Any] = {
        "runs": [{"name": run.name, "epoch": _epoch(run)} for run in runs],
        "panels": [_panel_data(panel) for panel in panels],
        "changes": _changes(runs, panels),
        # The last grid is in its own element.
        "frames": [
            [{"at": frame.examples, "src": None if frame is own[-1] else frame.source} for frame in own]
            for own in frames
        ],
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _panel_data(panel: Panel) -> Mapping[str, Any]:
    return {
        "title": panel.quantity.title,
        "unit": panel.quantity.unit,
        "group": panel.quantity.group,
        "step": panel.quantity.is_step,
        "zero": panel.quantity.is_step or panel.quantity.group == SCHEDULE,
        "lines": [
            {"run": line.run, "x": list(line.x), "y": [float(f"{value:.6g}") for value in line.y]}
            for line in panel.lines
        ],
    }


def _epoch(run: RunRecord) -> float | None:
    """Examples in one epoch."""
    epoch = run.rows[-1].get("epoch") if run.rows else None
    return round(run.examples / epoch, 3) if isinstance(epoch, int | float) and epoch else None


def _changes(runs: Sequence[RunRecord], panels: Sequence[Panel]) -> list[int]:
    """Where the batch size of a single run changes."""
    if len(runs) > 1:
        return []
    for panel in panels:
        if panel.quantity.title == "Batch size":
            line = panel.lines[0]
            found = [line.x[n - 1] for n in range(1, len(line.y)) if line.y[n] != line.y[n - 1]]
            return found if len(found) <= _MOST_CHANGES else []
    return []
