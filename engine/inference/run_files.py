"""The files of a run, as lines of text."""

from __future__ import annotations

import os

import tensorflow as tf

from data import gfile
from engine.storage.run_directory import RunDirectory


def files_text(run: RunDirectory) -> str:
    """Lists the files of the run directory, one line each."""
    described = (
        (run.config, "configuration of the run"),
        (run.data, "what the run knows of its data set"),
        (run.train_log, "one row for each log event"),
        (run.eval_log, "one row for each evaluation"),
        (run.evaluations, "metrics of every image; the worst and the best images"),
        (run.console_log, "console output"),
        (run.checkpoints, "checkpoints"),
        (run.best, "the best checkpoint on the validation split"),
        (run.samples, "image grids of fixed inputs"),
        (run.tensorboard, "for tensorboard --logdir"),
        (run.micro_batch, "largest micro-batch that fits into memory"),
        (run.done, "the run is complete"),
    )
    lines = []
    for path, what in described:
        if tf.io.gfile.isdir(path):
            names = gfile.list_dir(path)
            path = os.path.join(path, names[-1] if len(names) == 1 else f"({len(names)} entries)")
        elif not tf.io.gfile.exists(path):
            continue
        lines.append(f"  {path:<48} {what}")
    return "\n".join(lines)
