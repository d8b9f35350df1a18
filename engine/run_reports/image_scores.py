"""Scores of single images, where an evaluation has written them into RUN/evaluations/.

There, each `NAME.csv` is a table with a header: one row for each image, a column that names it, and a column
for each metric. A picture beside it that begins with the same NAME shows some of its images, such as the
worst. Whatever is missing is left out.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data import gfile
from engine.evaluation.intervals import mean_interval
from engine.run_reports import quantities
from engine.run_reports.run_record import RunRecord, is_number
from engine.run_reports.sample_frames import Frame, data_url, encode, read_picture
from engine.storage.file_errors import reraise_read_errors

DIRECTORY = "evaluations"
_SHOWN = 4
_MOST_SHEETS = 8
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageScores:
    """One evaluation of single images.

    Attributes:
      title: the run and the table.
      columns: of the table.
      metric: the one by which the images are ordered; empty if no column is a known metric.
      count: number of images.
      mean: of the metric.
      interval: 95 % interval of the mean; see `engine.evaluation.intervals`.
      worst, best: (name of the image, value), the most extreme first.
      sheets: (caption, picture).
    """

    title: str
    columns: tuple[str, ...] = ()
    metric: str = ""
    count: int = 0
    mean: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)
    worst: Sequence[tuple[str, float]] = ()
    best: Sequence[tuple[str, float]] = ()
    sheets: Sequence[tuple[str, Frame]] = ()


def read_scores(runs: Sequence[RunRecord]) -> list[ImageScores]:
    """The scores of all runs that have some."""
    return [score for run in runs for score in _scores_of(run)]


def intervals_of(row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each metric that a row of eval.jsonl gives one for, by name.

    The keys `metric_low/NAME` and `metric_high/NAME` are its ends.
    """
    found = {}
    for key, low in row.items():
        kind, _, name = key.partition("/")
        high = row.get(f"metric_high/{name}")
        if kind == "metric_low" and is_number(low) and is_number(high):
            found[name] = (low, high)
    return found


def _scores_of(run: RunRecord) -> list[ImageScores]:
    directory = os.path.join(run.path, DIRECTORY)
    with reraise_read_errors(directory):
        names = gfile.list_dir(directory) if gfile.is_dir(directory) else []
    pictures = [name for name in names if name.lower().endswith(_PICTURES)][:_MOST_SHEETS]
    found = []
    for name in names:
        stem, end = os.path.splitext(name)
        if end != ".csv":
            continue
        own = [picture for picture in pictures if picture.startswith(stem)]
        score = _score(os.path.join(directory, name), title=f"{run.name}, {stem}")
        found.append(dataclasses.replace(score, sheets=_sheets(directory, own)))
    return found


def _sheets(directory: str, names: Sequence[str]) -> list[tuple[str, Frame]]:
    sheets = []
    for name in names:
        picture = read_picture(os.path.join(directory, name))
        if picture is not None:
            (width, height), jpeg = encode(picture, 1200, 85)
            frame = Frame(examples=0, width=width, height=height, source=data_url(jpeg))
            sheets.append((os.path.splitext(name)[0].replace("_", " "), frame))
    return sheets


def _score(path: str, *, title: str) -> ImageScores:
    with reraise_read_errors(path), gfile.open_text(path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    known = [name for name in columns if name and quantities.is_higher_better(name) is not None]
    known.sort(key=lambda name: not quantities.is_main_metric(name))
    if not known:
        return ImageScores(title=title)
    metric = known[0]
    label = next((name for name in columns if quantities.is_higher_better(name or "") is None), metric)
    scored = [(row[label] or "", value) for row in rows if math.isfinite(value := _number(row[metric]))]
    if not scored:
        return ImageScores(title=title)
    values = np.array([value for _, value in scored])  # in the order of the evaluation: the same interval
    scored.sort(key=lambda pair: pair[1], reverse=not quantities.is_higher_better(metric))  # the worst first
    return ImageScores(
        title=title,
        columns=tuple(columns),
        metric=metric,
        count=len(scored),
        mean=float(values.mean()),
        interval=mean_interval(values) or (math.nan, math.nan),
        worst=scored[:_SHOWN],
        best=scored[: -_SHOWN - 1 : -1],
    )


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:  # a row that was not written whole
        return math.nan
