"""Files that show an evaluation image by image."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from engine.evaluation.contact_sheet import Extremes, contact_sheet
from engine.evaluation.image_table import image_table
from engine.evaluation.results import SplitEvaluation
from engine.evaluation.sample_grid import write_png
from engine.storage.atomic_files import write_text
from engine.storage.file_errors import reraise_write_errors
from engine.storage.run_directory import RunDirectory


def write_details(
    run: RunDirectory, evaluation: SplitEvaluation, extremes: Extremes, *, split: str, examples: int
) -> list[str]:
    """Writes the metrics of every image as CSV, and a picture of the worst and the best images.

    Args:
      run: gets the files, in its directory `evaluations`. Those of the same split and position are replaced.
      evaluation: what was measured; without any metric, nothing is written.
      extremes: the images to show, if there are any.
      split: that was evaluated.
      examples: position of the checkpoint.

    Returns:
      The paths of the files.
    """
    if not evaluation.image_values:
        return []
    stem = os.path.join(run.evaluations, f"{_file_name(split)}_{examples:08d}")
    with reraise_write_errors(run.evaluations):
        tf.io.gfile.makedirs(run.evaluations)
    paths = [f"{stem}.csv"]
    write_text(paths[0], image_table(evaluation))
    if extremes.worst:
        paths.append(f"{stem}_worst_and_best.png")
        with reraise_write_errors(paths[1]):
            write_png(paths[1], contact_sheet(extremes))
    return paths


def _file_name(split: str) -> str:
    """The split as a part of a file name; that of pictures in two folders holds their paths."""
    return re.sub(r"[^\w.-]+", "_", split)[:100]
