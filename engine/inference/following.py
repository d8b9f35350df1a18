"""Evaluates each new checkpoint of a run that another process trains."""

from __future__ import annotations

import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from engine.errors import ConfigurationError
from engine.evaluation.results import SplitEvaluation
from engine.inference.run_evaluator import RunEvaluator
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory

POLL_SEC = 5.0
"""Time between two looks at the run directory."""


def wait_for_checkpoint(run: RunDirectory, *, poll_sec: float = POLL_SEC) -> None:
    """Waits until a run has a checkpoint; says so once."""
    said = False
    while not (tf.io.gfile.exists(run.config) and checkpoints.list_checkpoints(run.checkpoints)):
        if not said:
            print(f"{run.path}: waiting for the first checkpoint", flush=True)
            said = True
        time.sleep(poll_sec)


def follow_run(evaluator: RunEvaluator, *, poll_sec: float = POLL_SEC) -> Iterator[SplitEvaluation]:
    """Evaluates the checkpoints of a run, the oldest first, and waits for new ones until the run is complete.

    It does not lock the run. Checkpoints that were evaluated before are skipped; one that is removed before
    it is read, or is damaged, is passed over with a warning.

    Args:
      evaluator: whose trainer restores the checkpoints.
      poll_sec: time between two looks at the run directory.
    """
    run = evaluator.trainer.run_directory
    passed_over: set[int] = set()
    while True:
        is_complete = tf.io.gfile.exists(run.done)  # a complete run writes no further checkpoint
        known = evaluator.evaluated() | passed_over
        waiting = [
            position for position in checkpoints.list_checkpoints(run.checkpoints) if position not in known
        ]
        if waiting:
            position = waiting[0]
            if (problem := _restore(evaluator, position)) is None:
                yield evaluator.evaluate()
            else:
                logging.warning("%s: checkpoint %d is passed over: %s", run.path, position, problem)
            passed_over.add(position)
        elif is_complete:
            return
        else:
            time.sleep(poll_sec)


def _restore(evaluator: RunEvaluator, position: int) -> str | None:
    """Restores a checkpoint; returns why that is impossible, None if it was possible."""
    directory = evaluator.trainer.run_directory.checkpoints
    try:
        checkpoints.restore(evaluator.trainer.state, directory, position)
    except (ConfigurationError, OSError, tf.errors.OpError) as error:
        # The trainer keeps only the newest ones.
        is_there = position in checkpoints.list_checkpoints(directory)
        return str(error) if is_there else "it was removed before it was read"
    return None
