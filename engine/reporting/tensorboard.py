"""What a run reports as TensorBoard's event files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from engine.log_writer import LogWriter, ReportedRun
from engine.reporting.event_files import cut_event_files, list_event_files
from engine.storage.file_errors import reraise_write_errors

_HPARAMS_SUFFIX = ".hparams"


class TensorboardWriter(LogWriter):
    """Writes scalars, image grids, histograms, the configuration as text, and hparams.

    The step of each event is its position in examples. Events after the position of a resumed run are cut.

    Args:
      directory: of the event files.
    """

    def __init__(self, directory: str):
        self._directory = directory
        self._start = 0
        self._writer: tf.summary.SummaryWriter = None

    def start(self, run: ReportedRun) -> None:
        """Cuts the event files of the run, and opens a new one."""
        self._start = run.done_examples
        cut_event_files(self._directory, run.done_examples)
        with reraise_write_errors(self._directory):
            if run.hyper_parameters:
                self._write_hparams(run)
            self._writer = tf.summary.create_file_writer(self._directory)

    def _write_hparams(self, run: ReportedRun) -> None:
        # TensorBoard shows the first event of a tag only, so those of an earlier start, which may have had
        # other settings, have to go. A file of their own makes that cheap.
        for path in list_event_files(self._directory) if tf.io.gfile.isdir(self._directory) else ():
            if path.endswith(_HPARAMS_SUFFIX):
                tf.io.gfile.remove(path)
        writer = tf.summary.create_file_writer(self._directory, filename_suffix=_HPARAMS_SUFFIX)
        with writer.as_default():
            hparams.hparams(dict(run.hyper_parameters))
        writer.close()

    @contextlib.contextmanager
    def _at(self, examples: int) -> Iterator[None]:
        with self._writer.as_default(step=examples):
            yield

    def write_config(self, text: str) -> None:
        """Writes text."""
        with self._at(self._start):
            tf.summary.text("config", "```\n" + text + "\n```")

    def write_row(self, row: Mapping[str, float]) -> None:
        """Writes a scalar for each key."""
        with self._at(int(row["examples"])):
            for name, value in row.items():
                if name not in ("examples", "time_unix"):
                    tf.summary.scalar(name, value)

    def write_evaluation(self, row: Mapping[str, float | str]) -> None:
        """Writes a scalar for each metric."""
        with self._at(int(row["examples"])):
            for name, value in row.items():
                if name.startswith("metric/"):
                    tf.summary.scalar(f"{row['split']}/{name.removeprefix('metric/')}", value)

    def write_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes an image."""
        with self._at(examples):
            tf.summary.image("samples", grid[np.newaxis])

    def write_weights(self, weights: Mapping[str, np.ndarray], *, examples: int) -> None:
        """Writes a histogram for each variable."""
        with self._at(examples):
            for name, values in weights.items():
                tf.summary.histogram(name, values)

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            with reraise_write_errors(self._directory):
                self._writer.close()
