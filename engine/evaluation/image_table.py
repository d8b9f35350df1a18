"""The table of every image of an evaluation, as CSV."""

from __future__ import annotations

import csv
import io

from engine.evaluation.results import SplitEvaluation


def image_table(evaluation: SplitEvaluation) -> str:
    """A row for each image: its name, its position in the split and its metrics.

    Columns are `name`, `example` and those of `SplitEvaluation.columns`. Each number has all its digits, so
    that the mean of the column of a metric is that of the evaluation.
    """
    columns = evaluation.columns
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "example", *columns])
    for example in range(evaluation.examples):
        name = evaluation.names[example] if evaluation.names else str(example)
        # Of unpaired data, one domain may have fewer images than the other.
        values = [_text(found[example]) if example < len(found) else "" for found in columns.values()]
        writer.writerow([name, example, *values])
    return text.getvalue()


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else repr(float(value))
