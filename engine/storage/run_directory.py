"""A run directory: the files of one training run, and how its rows are written.

config.gin    configuration of the run          checkpoints/ best/   checkpoints
train.jsonl   one row for each log event        samples/             image grids of fixed inputs
eval.jsonl    one row for each evaluation       tensorboard/         the same, and images and configuration
log.txt       console output                    micro_batch.json     the micro-batch that fits into memory
dataset.json  what the run knows of its data    fingerprint.json     what identifies its data set
DONE          present once the run is complete  evaluations/         metrics of every image
lock          names the process that trains
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping

import tensorflow as tf
from absl import logging

from data import gfile
from data.description import DataDescription
from engine.errors import ConfigurationError
from engine.storage import run_lock
from engine.storage.atomic_files import append_text, write_text
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors

# Temporary files of `RunDirectory.create` and `write_text`.
_LEFTOVER = re.compile(r"\.writable-[0-9a-f]{32}|.+\.[0-9a-f]{32}\.tmp")


class RunDirectory:
    """Paths and small files of one run.

    Args:
      path: the run directory; `create` makes it.

    Attributes:
      path: likewise, with ~ expanded.
      config, data, fingerprint, train_log, eval_log, console_log, micro_batch, lock, done: paths of its
        files.
      checkpoints, best, samples, evaluations, tensorboard: paths of its directories.
    """

    def __init__(self, path: str):
        self.path = os.path.expanduser(path)
        self._lock: run_lock.RunLock | None = None
        self.config = os.path.join(self.path, "config.gin")
        self.data = os.path.join(self.path, "dataset.json")
        self.train_log = os.path.join(self.path, "train.jsonl")
        self.eval_log = os.path.join(self.path, "eval.jsonl")
        self.evaluations = os.path.join(self.path, "evaluations")
        self.console_log = os.path.join(self.path, "log.txt")
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self.best = os.path.join(self.path, "best")
        self.samples = os.path.join(self.path, "samples")
        self.tensorboard = os.path.join(self.path, "tensorboard")
        self.micro_batch = os.path.join(self.path, "micro_batch.json")
        self.fingerprint = os.path.join(self.path, "fingerprint.json")
        self.lock = os.path.join(self.path, "lock")
        self.done = os.path.join(self.path, "DONE")

    def create(self) -> None:
        """Makes the directory, and checks that files can be written in it.

        Raises:
          ConfigurationError: it cannot be written.
        """
        probe = os.path.join(self.path, f".writable-{uuid.uuid4().hex}")  # several workers do this at once
        with reraise_write_errors(f"--workdir={self.path}", remedy="choose a directory you may write to"):
            with gfile.new_dir(self.path):
                with tf.io.gfile.GFile(probe, "w") as file:
                    file.write("")
                tf.io.gfile.remove(probe)

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Keeps other processes from training in this directory as long as the block runs.

        Raises:
          ConfigurationError: one does already.
        """
        with run_lock.hold(self.lock, what=f"--workdir={self.path}") as self._lock:
            yield

    def check_lock(self) -> None:
        """Raises ConfigurationError if another process has taken over the lock that this one held."""
        if self._lock is not None:
            self._lock.check()

    def read_config(self) -> str | None:
        """The configuration of the run in this directory; None if there is no run.

        Raises:
          ConfigurationError: it cannot be read.
        """
        with reraise_read_errors(self.config):
            if not gfile.exists(self.config):
                return None
            with gfile.open_text(self.config) as file:  # an editor may have added a byte-order mark
                return file.read()

    def write_config(self, text: str) -> None:
        """Writes config.gin."""
        write_text(self.config, text)

    def read_data(self) -> DataDescription | None:
        """What the run recorded of its data set; None if there is no dataset.json, as in older runs.

        Raises:
          ConfigurationError: it cannot be read.
        """
        with reraise_read_errors(self.data):
            if not tf.io.gfile.exists(self.data):
                return None
            with tf.io.gfile.GFile(self.data) as file:
                text = file.read()
        try:
            return DataDescription.from_json(text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.data}: does not describe a data set ({error}); remove it, and the data set itself is "
                "read instead"
            ) from error

    def write_data(self, description: DataDescription) -> None:
        """Writes dataset.json."""
        write_text(self.data, description.to_json() + "\n")

    def mark_done(self, summary: Mapping[str, object]) -> None:
        """Marks the run as complete, with a summary of it."""
        write_text(self.done, to_json(summary) + "\n")

    def clear_done(self) -> None:
        """Removes the mark of a complete run."""
        if tf.io.gfile.exists(self.done):
            tf.io.gfile.remove(self.done)

    def clear_leftovers(self) -> None:
        """Removes temporary files that a killed process left; call it only while no worker writes one."""
        for name in gfile.list_dir(self.path):
            if _LEFTOVER.fullmatch(name):
                tf.io.gfile.remove(os.path.join(self.path, name))

    def cut_logs(self, examples: int) -> None:
        """Drops the rows after the position from which a run resumes, and an incomplete last row."""
        for path in (self.train_log, self.eval_log):
            rows = read_rows(path)
            kept = [row for row in rows if row["examples"] <= examples]
            if tf.io.gfile.exists(path):
                write_text(path, "".join(to_json(row) + "\n" for row in kept))

    def note(self, text: str) -> None:
        """Prints a line and appends it to log.txt; for use outside training, without a progress bar."""
        print(text, flush=True)
        append_text(self.console_log, text + "\n")


def read_rows(path: str) -> list[dict]:
    """The complete rows of a .jsonl file; none if there is no file.

    Raises:
      ConfigurationError: it cannot be read.
    """
    with reraise_read_errors(path):
        if not tf.io.gfile.exists(path):
            return []
        with tf.io.gfile.GFile(path, "rb") as file:
            lines = file.read().split(b"\n")
    rows = []
    # Whatever follows the last newline was still being written when the process ended.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:  # also incomplete, or lost in a crash of the machine
            logging.warning("%s: line %d is not a complete row and is skipped", path, number)
    return rows


def append_row(path: str, row: Mapping[str, object]) -> None:
    """Appends one row and flushes it. Values that are not finite are written as null.

    Raises:
      ConfigurationError: it cannot be written.
    """
    text = to_json(row) + "\n"
    append_text(path, text if _ends_with_newline(path) else "\n" + text)


def to_json(row: Mapping[str, object]) -> str:
    """Strict JSON on one line: values that are not finite become null."""
    strict = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(strict, allow_nan=False)


def _ends_with_newline(path: str) -> bool:
    size = tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else 0
    if not size:
        return True
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"
