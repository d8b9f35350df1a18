"""The table of every image of an evaluation, as CSV."""

from __future__ import annotations

import csv
import io

from engine.evaluation.results import Evaluation


def image_table(evaluation: Evaluation) -> str:
    """A row for each image: its name, its position in the split and its metrics.

    Columns are `name`, `example` and those of `Evaluation.image_values`. Each value has all its digits, so
    that the mean of a column is the metric of the evaluation.
    """
    columns = evaluation.image_values
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "example", *columns])
    for example in range(evaluation.examples):
        name = evaluation.names[example] if evaluation.names else str(example)
        # Of unpaired data, one domain may have fewer images than the other.
        values = [repr(float(found[example])) if example < len(found) else "" for found in columns.values()]
        writer.writerow([name, example, *values])
    return text.getvalue()
