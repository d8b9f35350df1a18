"""A run directory: where everything of one training run lies, and how its rows are written.

config.gin    what was really used       checkpoints/ best/   everything needed to go on
train.jsonl   one row a log event        samples/             grids over fixed inputs
eval.jsonl    one row an evaluation      tensorboard/         the same, plus images and config
log.txt       what the console showed    micro_batch.json     what fits into memory, where measured
DONE          only when the run is complete
"""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from engine.errors import ConfigurationError
from engine.storage.atomic_files import append_text, reason_of, reraise_read_errors, write_text

# What `RunDirectory.create` and `write_text` write for a moment.
_LEFTOVER = re.compile(r"\.writable-[0-9a-f]{32}|.+\.[0-9a-f]{32}\.tmp")


class RunDirectory:
    """Paths and small files of one run.

    Args:
      path: the run directory; made by `create`.
    """

    def __init__(self, path: str):
        self.path = os.path.expanduser(path)
        self.config = os.path.join(self.path, "config.gin")
        self.train_log = os.path.join(self.path, "train.jsonl")
        self.eval_log = os.path.join(self.path, "eval.jsonl")
        self.console_log = os.path.join(self.path, "log.txt")
        self.checkpoints = os.path.join(self.path, "checkpoints")
        self.best = os.path.join(self.path, "best")
        self.samples = os.path.join(self.path, "samples")
        self.tensorboard = os.path.join(self.path, "tensorboard")
        self.micro_batch = os.path.join(self.path, "micro_batch.json")
        self.done = os.path.join(self.path, "DONE")

    def create(self) -> None:
        """Makes the directory, and makes sure that files can be written in it.

        Raises:
          ConfigurationError: it cannot be written.
        """
        probe = os.path.join(self.path, f".writable-{uuid.uuid4().hex}")  # several workers do this at once
        try:
            tf.io.gfile.makedirs(self.path)
            with tf.io.gfile.GFile(probe, "w") as file:
                file.write("")
            tf.io.gfile.remove(probe)
        except tf.errors.OpError as error:
            raise ConfigurationError(
                f"--workdir={self.path}: cannot be written ({reason_of(error)}); choose a directory you may "
                "write to"
            ) from error

    def read_config(self) -> str | None:
        """The configuration of the run that lies here; None if there is none."""
        with reraise_read_errors(self.config):
            if not tf.io.gfile.exists(self.config):
                return None
            with tf.io.gfile.GFile(self.config) as file:
                return file.read()

    def write_config(self, text: str) -> None:
        write_text(self.config, text)

    def mark_done(self, summary: Mapping) -> None:
        write_text(self.done, to_json(summary) + "\n")

    def clear_done(self) -> None:
        if tf.io.gfile.exists(self.done):
            tf.io.gfile.remove(self.done)

    def clear_leftovers(self) -> None:
        """Removes small files that a kill left half written; only while no worker writes one."""
        for name in tf.io.gfile.listdir(self.path):
            if _LEFTOVER.fullmatch(name):
                tf.io.gfile.remove(os.path.join(self.path, name))

    def cut_logs(self, examples: int) -> None:
        """Drops rows past the position a run resumes at, and a last row that was cut off."""
        for path in (self.train_log, self.eval_log):
            rows = read_rows(path)
            kept = [row for row in rows if row["examples"] <= examples]
            if tf.io.gfile.exists(path):
                write_text(path, "".join(to_json(row) + "\n" for row in kept))

    def note(self, text: str) -> None:
        """Prints a line outside training, and appends it to log.txt."""
        print(text, flush=True)
        append_text(self.console_log, text + "\n")


def read_rows(path: str) -> list[dict]:
    """The complete rows of a .jsonl file, none if it does not exist."""
    with reraise_read_errors(path):
        if not tf.io.gfile.exists(path):
            return []
        with tf.io.gfile.GFile(path, "rb") as file:
            lines = file.read().split(b"\n")
    rows = []
    # What follows the last newline was still being written when the process ended.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:  # so was this one, or a crash of the machine lost it
            logging.warning("%s: line %d is no row and is left out", path, number)
    return rows


def append_row(path: str, row: Mapping) -> None:
    """Appends one row and flushes it. Values that are not finite are written as null.

    Raises:
      ConfigurationError: it cannot be written.
    """
    text = to_json(row) + "\n"
    append_text(path, text if _ends_a_line(path) else "\n" + text)


def _ends_a_line(path: str) -> bool:
    size = tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else 0
    if not size:
        return True
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def to_json(row: Mapping) -> str:
    """Strict JSON on one line: no NaN, no Infinity."""
    strict = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(strict, allow_nan=False)
