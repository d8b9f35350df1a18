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
_ROOT = "variables/"
_OPTIONAL = ("decision/", "noise_scale/")


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
    tf.train.Checkpoint(variables=train_state.variables()).write(os.path.join(temporary, _PREFIX))
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
    stored = {name.split("/")[1] for name, _ in tf.train.list_variables(path) if name.startswith(_ROOT)}
    # A run may go on with another batch schedule: what only that one remembers starts afresh.
    variables = {
        name: variable
        for name, variable in train_state.variables().items()
        if _escaped(name) in stored or not name.startswith(_OPTIONAL)
    }
    unknown = stored - {_escaped(name) for name in variables}
    unknown -= {name for name in unknown if name.startswith(tuple(map(_escaped, _OPTIONAL)))}
    try:
        status = tf.train.Checkpoint(variables=variables).read(path)
        status.assert_existing_objects_matched()
        if unknown:
            raise ValueError(f"it holds {', '.join(sorted(unknown))}")
        status.expect_partial()
    except (AssertionError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: does not fit the configured networks and optimizers "
            f"({' '.join(str(error).split())[:200]}); use the configuration it was trained with, or "
            "another --workdir"
        ) from error


def _escaped(name: str) -> str:
    """A variable's name as TensorFlow writes it into a checkpoint."""
    return name.replace(".", "..").replace("/", ".S")
