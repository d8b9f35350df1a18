"""The rows and sample grids of a run as files of its directory."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from engine.evaluation.sample_grid import write_png
from engine.log_writer import LogWriter
from engine.storage.file_errors import reraise_write_errors
from engine.storage.run_directory import RunDirectory, append_row


class RunFilesWriter(LogWriter):
    """Writes train.jsonl, eval.jsonl and samples/. `RunDirectory.cut_logs` has dropped rows of a resumed run.

    Args:
      run: the run directory.
    """

    def __init__(self, run: RunDirectory):
        self._run = run

    def write_row(self, row: Mapping[str, float]) -> None:
        """Appends to train.jsonl."""
        append_row(self._run.train_log, row)

    def write_evaluation(self, row: Mapping[str, float | str]) -> None:
        """Appends to eval.jsonl."""
        append_row(self._run.eval_log, row)

    def write_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes a PNG."""
        path = os.path.join(self._run.samples, f"samples_{examples:08d}.png")
        with reraise_write_errors(path):
            tf.io.gfile.makedirs(self._run.samples)
            write_png(path, grid)
