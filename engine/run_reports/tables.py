"""The tables of the page: overview, metrics, single images, settings."""

from __future__ import annotations

import html
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from data.imaging.metric_names import is_of_features
from engine.run_reports import quantities
from engine.run_reports.image_scores import ImageScores, intervals_of
from engine.run_reports.run_record import RunRecord, is_number

_MOST_DIGITS_OF_A_SETTING = 300


def key(run: int) -> str:
    """The coloured mark of a run, drawn as its line is."""
    return f'<span class="key d{run // 8 % 4}" style="border-color:var(--c{run % 8})"></span>'


def name_of(run: RunRecord) -> str:
    """The name of a run, which may be broken between its parts."""
    return re.sub("([,/])", r"\1<wbr>", html.escape(run.name))


def task_of(run: RunRecord) -> str:
    """The class of the run's task, such as "Pix2Pix"."""
    reference = run.settings.get("experiment.Experiment.task", "")
    return reference.strip("@()").rpartition(".")[2]


def dataset_of(run: RunRecord) -> str:
    """The name of the run's data set."""
    for name, value in run.settings.items():
        if name.endswith("Images.dataset"):
            return value.strip("'\"")
    return ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells; columns in `numbers` are aligned to the right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_class(' '.join(filter(None, ['number' if n in numbers else '', _own_class(cell)])))}>"
            f"{cell}</{tag}>"
            for n, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _own_class(cell: str) -> str:
    return "name" if cell.startswith('<span class="key ') else ""


def overview(runs: Sequence[RunRecord]) -> str:
    """What a reader wants to know first."""
    split = _shared_split(runs)
    facts = [_facts(run, split) for run in runs]
    if len(runs) == 1:
        cells = "".join(
            f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>"
            for name, (value, more) in facts[0].items()
        )
        return f'<dl class="card figures" style="margin:0">{cells}</dl>'
    names = list(dict.fromkeys(name for each in facts for name in each))
    rows = [
        [f"{key(n)}{name_of(run)}"]
        + [f"{value}<br><small>{more}</small>" if more else value for value, more in _all_of(each, names)]
        for n, (run, each) in enumerate(zip(runs, facts, strict=True))
    ]
    return f'<div class="card">{_table(["Run", *names], rows)}</div>'


def _all_of(facts: Mapping[str, tuple[str, str]], names: Sequence[str]) -> list[tuple[str, str]]:
    return [facts.get(name, ("", "")) for name in names]


def _shared_split(runs: Sequence[RunRecord]) -> str:
    """The split whose metrics are shown first: one that as many runs as possible are evaluated on."""
    evaluated = [split for run in runs for split in run.last_evaluations()]
    return max(evaluated, key=lambda split: (evaluated.count(split), split == "test"), default="")


def _facts(run: RunRecord, split: str) -> dict[str, tuple[str, str]]:
    """Name -> (value, what to add to it), as HTML."""
    facts = {}
    row = run.last_evaluations().get(split, {})
    measured = [name.removeprefix("metric/") for name in row if name.startswith("metric/")]
    main = [name for name in measured if quantities.is_main_metric(name) and is_number(row[f"metric/{name}"])]
    for name in main[:2]:
        title, unit = quantities.metric_title(name, among=measured)
        value = f"{quantities.metric_text(name, row[f'metric/{name}'])} {unit}".strip()
        facts[html.escape(title)] = (value, f"{html.escape(split)}, at {row['examples']:,} examples")
    of_total = f"of {run.total:,}" if run.total and run.total > run.examples else ""
    epoch = run.rows[-1].get("epoch") if run.rows else None
    if is_number(epoch):
        epochs = "1 epoch" if epoch == 1 else f"{epoch:.4g} epochs"
        of_total = ", ".join(filter(None, [of_total, epochs]))
    facts["Examples"] = (f"{run.examples:,}", of_total)
    batches = [row["global_batch"] for row in run.rows if is_number(row.get("global_batch"))]
    if batches:
        growth = f"{batches[0]} → {batches[-1]}" if batches[0] != batches[-1] else f"{batches[-1]}"
        replicas = run.rows[-1].get("replicas", 1)
        facts["Batch size"] = (growth, f"on {replicas} replica{'' if replicas == 1 else 's'}")
    speeds = [row["examples_per_sec"] for row in run.rows if is_number(row.get("examples_per_sec"))]
    if speeds:
        sec = _training_sec(run.rows)
        facts["Examples/s"] = (f"{statistics.median(speeds):.3g}", f"{_duration(sec)} of training")
    facts["State"] = (run.state, "")
    return facts


def _training_sec(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds spent in steps, over all starts of the run."""
    total, before = 0.0, 0
    for row in rows:
        if is_number(row.get("examples_per_sec")) and row["examples_per_sec"]:
            total += (row["examples"] - before) / row["examples_per_sec"]
        before = row["examples"]
    return total


def _duration(sec: float) -> str:
    if sec >= 3600:
        return f"{sec / 3600:.3g} h"
    return f"{sec / 60:.3g} min" if sec >= 60 else f"{sec:.0f} s"


def metrics(runs: Sequence[RunRecord]) -> str:
    """The last evaluation of each run on each split; the best of each column is marked."""
    splits = list(dict.fromkeys(split for run in runs for split in run.last_evaluations()))
    parts = []
    for split in splits:
        rows = [run.last_evaluations().get(split, {}) for run in runs]
        names = [
            name.removeprefix("metric/")
            for name in dict.fromkeys(name for row in rows for name in row if name.startswith("metric/"))
        ]
        if names:
            parts.append(f"<h3>On {html.escape(split)}</h3>{_metric_table(runs, rows, names)}")
    if parts:
        return "".join(parts)
    if splits:
        return '<p class="empty">Unpaired data: there is no target to compare with.</p>'
    return '<p class="empty">Not evaluated yet.</p>'


def _metric_table(runs: Sequence[RunRecord], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    best = {name: _best(name, [row.get(f"metric/{name}") for row in rows]) for name in names}
    extractors = {
        run.name: str(row["extractor"]) for run, row in zip(runs, rows, strict=True) if "extractor" in row
    }
    if len(set(extractors.values())) > 1:
        best |= {name: None for name in names if is_of_features(name)}
    head = ["Run", "Examples"]
    for name in names:
        title, unit = quantities.metric_title(name, among=names)
        head.append(html.escape(f"{title}, {unit}" if unit else title))
    body = []
    for n, (run, row) in enumerate(zip(runs, rows, strict=True)):
        if not row:
            continue
        cells = [f"{key(n) if len(runs) > 1 else ''}{name_of(run)}", f"{row['examples']:,}"]
        intervals = intervals_of(row)
        for name in names:
            value = row.get(f"metric/{name}")
            text = quantities.metric_text(name, value) if is_number(value) else "-"
            if is_number(value) and value == best[name]:
                text = f'<span class="best">{text}</span>'
            if name in intervals:
                low, high = (quantities.metric_text(name, end) for end in intervals[name])
                text += f"<br><small>{low} to {high}</small>"
            cells.append(text)
        body.append(cells)
    return _table(head, body, numbers=range(1, len(head))) + _extractor_line(extractors)


def _extractor_line(extractors: Mapping[str, str]) -> str:
    """Says by which features KID and FID are measured, and whether those of the runs are comparable.

    Args:
      extractors: name of the run -> name of its feature extractor.
    """
    different = sorted(set(extractors.values()))
    if not different:
        return ""
    text = f"KID and FID by {different[0]}."
    if len(different) > 1:
        of_runs = ", ".join(f"{run} by {extractor}" for run, extractor in extractors.items())
        text = f"KID and FID cannot be compared between these runs: {of_runs}."
    return f'<p class="muted">{html.escape(text)}</p>'


def _best(name: str, values: Sequence[object]) -> object:
    """The best value, if there are several and it is known which is better."""
    numbers = [value for value in values if is_number(value)]
    higher = quantities.is_higher_better(name)
    if len(numbers) < 2 or higher is None:
        return None
    return max(numbers) if higher else min(numbers)


def single_images(scores: Sequence[ImageScores]) -> str:
    """The worst and the best images of each evaluation that measured single images."""
    parts = []
    for score in scores:
        parts.append(f"<h3>{html.escape(score.title)}</h3>")
        if score.metric:
            title, unit = quantities.metric_title(score.metric, among=score.columns)
            low, high = score.interval
            parts.append(
                f'<p class="muted">{html.escape(title)} of {score.count:,} images: mean '
                f"{quantities.metric_text(score.metric, score.mean)} {html.escape(unit)}, 95 % interval "
                f"{quantities.metric_text(score.metric, low)} to "
                f"{quantities.metric_text(score.metric, high)} (bootstrap).</p>"
            )
            rows = [
                [kind, html.escape(name), quantities.metric_text(score.metric, value)]
                for kind, images in (("worst", score.worst), ("best", score.best))
                for name, value in images
            ]
            head = ["", "Image", html.escape(f"{title}, {unit}" if unit else title)]
            parts.append(_table(head, rows, numbers=[2]))
        for caption, frame in score.sheets:
            parts.append(
                f'<figure class="sheet"><figcaption>{html.escape(caption)}</figcaption><img '
                f'width="{frame.width}" height="{frame.height}" src="{frame.source}" '
                f'alt="{html.escape(caption)}"></figure>'
            )
    return "".join(parts)


def settings(runs: Sequence[RunRecord]) -> str:
    """What differs between the runs, then the whole configuration of each."""
    parts = []
    if len(runs) > 1:
        found = different_settings(runs)
        rows = [
            [f"<code>{html.escape(name)}</code>", *(f"<code>{html.escape(value)}</code>" for value in values)]
            for name, values in found.items()
        ]
        head = ["Setting", *(f"{key(n)}{name_of(run)}" for n, run in enumerate(runs))]
        parts.append("<h3>Different between the runs</h3>")
        parts.append(_table(head, rows) if rows else '<p class="empty">No setting differs.</p>')
    for run in runs:
        text = html.escape(run.config_text) if run.config_text else "No config.gin has been written yet."
        name = html.escape(run.name)
        parts.append(f"<details><summary>All settings of {name}</summary><pre>{text}</pre></details>")
    return "".join(parts)


def different_settings(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Parameters whose values differ between the runs, with the value of each run."""
    every = [run.settings for run in runs]
    names = sorted({name for each in every for name in each})
    values = {
        name: [each.get(name, "not set")[:_MOST_DIGITS_OF_A_SETTING] for each in every] for name in names
    }
    return {name: own for name, own in values.items() if len(set(own)) > 1}
