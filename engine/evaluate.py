"""Evaluates a run on a whole split, and two baselines that need no training.

  python -m engine.evaluate --workdir=runs/quickstart --split=test

In a notebook: `from engine.evaluate import evaluate; evaluate(workdir=..., split="test")`.
"""

from __future__ import annotations

import os

import tensorflow as tf
from absl import flags

from data import gfile
from engine.cli.program import run_program
from engine.evaluation.evaluator import Evaluation, table
from engine.opened_run import open_run
from engine.reporting.log_rows import evaluation_row
from engine.storage.run_directory import RunDirectory, append_row, read_rows


def evaluate(*, workdir: str, split: str = "test", checkpoint: str = "latest") -> Evaluation:
    """Evaluates a checkpoint of a run on a split, and appends a row to the run's eval.jsonl.

    Args:
      workdir: run directory.
      split: name of a split of the run's data set.
      checkpoint: "latest", "best", or a position in examples.

    Raises:
      ConfigurationError: there is no such run or checkpoint.
      data.errors.DataError: there is no such split, or the data set cannot be used.
    """
    trainer = open_run(workdir, checkpoint=checkpoint)
    evaluation = trainer.evaluator.evaluate(split, baselines=True)
    row = evaluation_row(evaluation, split=split, step=trainer.step, examples=trainer.examples)
    append_row(trainer.run_directory.eval_log, row)
    return evaluation


def _files(run: RunDirectory) -> str:
    """Lists the files of the run directory, one line each."""
    described = (
        (run.config, "configuration of the run"),
        (run.data, "what the run knows of its data set"),
        (run.train_log, "one row for each log event"),
        (run.eval_log, "one row for each evaluation"),
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


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    flags.DEFINE_string("workdir", None, "Run directory.", flag_values=values)
    flags.DEFINE_string("split", "test", "Split to evaluate.", flag_values=values)
    flags.DEFINE_string(
        "checkpoint",
        "latest",
        "'latest', 'best', or the position of a checkpoint in examples.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    evaluation = evaluate(workdir=values.workdir, split=values.split, checkpoint=values.checkpoint)
    measured = read_rows(RunDirectory(values.workdir).eval_log)[-1]
    print(f"{values.workdir}, {values.checkpoint} checkpoint: {measured['examples']} examples")
    print(table(evaluation, split=values.split))
    print(f"files of the run:\n{_files(RunDirectory(values.workdir))}")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
