"""Saving and restoring the whole state of a run.

A checkpoint is a directory named by its position, `00004000/`, holding the variables under the names
of `TrainState.variables()`. It is written beside under another name and renamed when complete, so a
directory with a number for a name is a whole checkpoint.
"""

from __future__ import annotations

import os

import tensorflow as tf
from absl import logging

from engine.state import TrainState
from engine.task import ConfigurationError

_PREFIX = "state"


def save(train_state: TrainState, directory: str, *, keep: int, is_chief: bool = True) -> str | None:
    """Writes a checkpoint of the current position and drops the oldest ones.

    Every worker must call this, since reading some variables is a collective; only the chief's
    files stay.

    Args:
      keep: checkpoints to keep, at least 1.

    Returns:
      The checkpoint's path (None on other workers than the chief).
    """
    examples = int(train_state.examples.numpy())
    final = os.path.join(directory, f"{examples:08d}")
    owner = "" if is_chief else f"-worker-{os.getpid()}"
    temporary = os.path.join(directory, f"incomplete-{examples:08d}{owner}")
    if tf.io.gfile.exists(temporary):
        tf.io.gfile.rmtree(temporary)
    tf.io.gfile.makedirs(temporary)
    _checkpoint(train_state).write(os.path.join(temporary, _PREFIX))
    if not is_chief:
        tf.io.gfile.rmtree(temporary)
        return None
    if tf.io.gfile.exists(final):
        tf.io.gfile.rmtree(final)
    tf.io.gfile.rename(temporary, final)
    for old in positions(directory)[:-keep]:
        tf.io.gfile.rmtree(os.path.join(directory, f"{old:08d}"))
    return final


def positions(directory: str) -> list[int]:
    """Positions in examples of the complete checkpoints, rising."""
    if not tf.io.gfile.isdir(directory):
        return []
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(directory))
    return sorted(int(name) for name in names if name.isdigit())


def restore_latest(train_state: TrainState, directory: str) -> int | None:
    """Restores the newest checkpoint that can be read.

    Returns:
      Its position in examples; None if there is no checkpoint.

    Raises:
      ConfigurationError: there are checkpoints, but none of them can be read or fits.
    """
    saved = positions(directory)
    for position in reversed(saved):
        try:
            restore(train_state, directory, position)
            return position
        except (tf.errors.OpError, IndexError) as error:  # truncated files, wrong checksums
            logging.warning(
                "checkpoint %s cannot be read (%s); trying the one before it",
                os.path.join(directory, f"{position:08d}"),
                str(error).splitlines()[0],
            )
    if saved:
        raise ConfigurationError(
            f"{directory}: none of its {len(saved)} checkpoints can be read; restore one from a copy, or "
            "start again in another --workdir"
        )
    return None


def restore(train_state: TrainState, directory: str, position: int) -> None:
    """Restores the checkpoint at a position.

    Raises:
      ConfigurationError: it holds other variables than the configured networks have.
      tf.errors.OpError, IndexError: its files are damaged.
    """
    path = os.path.join(directory, f"{position:08d}", _PREFIX)
    try:
        status = _checkpoint(train_state).read(path)
        status.assert_existing_objects_matched()
        status.assert_consumed()
    except (AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: does not fit the configured networks and optimizers "
            f"({' '.join(str(error).split())[:200]}); use the configuration it was trained with, or "
            "another --workdir"
        ) from error


def _checkpoint(train_state: TrainState) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(variables=train_state.variables())
