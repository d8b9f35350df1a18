"""Saving and restoring the whole state of a run.

A checkpoint is a directory named by its position in examples, `00004000/`:

state.index, state.data-00000-of-00001   the variables, by the names of `TrainState.variables()`
manifest.json                            position, sizes and digests, written last (`engine.storage.manifest`)

On a disk it is written under a temporary name, flushed, read back and compared, and then renamed. So a
directory that is named by a number was once a complete checkpoint. A store (gs://, ...) cannot rename a
directory, and on ram:// that would move none of its files; there a checkpoint is written under its own name
and counts once it has its manifest. Checkpoints are verified before they are restored, and before older
ones are removed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from data import gfile
from engine.errors import ConfigurationError
from engine.inner_loop.train_state import TrainState
from engine.storage import manifest
from engine.storage.atomic_files import fsync, link_or_copy
from engine.storage.checkpoint_reader import assign_variables, open_checkpoint
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors

_PREFIX = "state"
_NETWORK_WEIGHT = re.compile(r"((?:network|averaged)/.+)/(\d{3,})_[^/]+")  # see `TrainState.variables`
# Prefixes of directories that are not checkpoints: being written, being removed, or moved aside for a new
# checkpoint of the same position.
_WRITING, _REMOVING, _REPLACED = "writing-", "removing-", "replaced-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A copy of the whole state.

    Attributes:
      examples: its position.
      values: of all variables, by name, in the host's memory.
    """

    examples: int
    values: Mapping[str, tf.Tensor]


def take_snapshot(train_state: TrainState) -> Snapshot:
    """Copies the state; training may go on at once.

    On a CPU a value shares the variable's memory until training next writes to that variable; from an
    accelerator it is copied here. Either way the host ends up with a second copy of the state. Every worker
    must call this, because reading some variables is a collective.
    """
    with tf.device("CPU:0"):
        values = {
            name: tf.identity(variable.read_value()) for name, variable in train_state.variables().items()
        }
    return Snapshot(examples=int(values["examples"]), values=values)


def write(snapshot: Snapshot, directory: str, *, keep: int) -> None:
    """Writes a checkpoint, then removes older ones.

    Args:
      snapshot: the state to write.
      directory: holds the checkpoints; made if missing.
      keep: newest intact checkpoints that stay; at least 1.

    Raises:
      ConfigurationError: it cannot be written; the earlier checkpoints are unchanged.
    """
    _add(directory, snapshot.examples, functools.partial(_write_files, snapshot), keep=keep)


def write_again(source: str, directory: str, *, examples: int, keep: int) -> None:
    """Adds an intact checkpoint of one directory to another one, then removes older ones there.

    On a disk both then share their files by hard links, so the values take no further room; none of the
    files is ever changed, and removing one checkpoint leaves the other. Where there are no links, as in a
    store, the files are copied and read back.

    Args:
      source: holds the checkpoint.
      directory: gets it; made if missing.
      examples: its position.
      keep: newest intact checkpoints that stay in `directory`; at least 1.

    Raises:
      ConfigurationError: it cannot be written; the earlier checkpoints are unchanged.
    """
    path = os.path.join(source, _name(examples))
    _add(directory, examples, functools.partial(_link_files, path, examples=examples), keep=keep)


def _add(directory: str, position: int, fill: Callable[[str], None], *, keep: int) -> None:
    """Adds a checkpoint, whose files `fill` puts into the directory that it is given."""
    name = _name(position)
    final = os.path.join(directory, name)
    temporary = final if gfile.is_url(directory) else os.path.join(directory, _WRITING + name)
    with reraise_write_errors(final):
        clean_up(directory)
        try:
            if gfile.is_url(directory) and tf.io.gfile.exists(final):
                _remove(directory, position)
            tf.io.gfile.makedirs(temporary)
            fill(temporary)
            if temporary != final:
                if tf.io.gfile.exists(final):
                    _move_aside(directory, position)
                tf.io.gfile.rename(temporary, final)
        except (OSError, tf.errors.OpError):
            _remove_partial(temporary)  # the disk may be full
            raise
        fsync(directory)
        clean_up(directory)
        _remove_old(directory, keep=keep, just_written=position)


def list_checkpoints(directory: str) -> list[int]:
    """Positions of the checkpoints in examples, in ascending order.

    Raises:
      ConfigurationError: the directory cannot be read.
    """
    with reraise_read_errors(directory):
        # `isdir` alone returns False on every error, and the run would start again from nothing.
        if not (tf.io.gfile.exists(directory) and tf.io.gfile.isdir(directory)):
            return []
        return sorted(
            int(name)
            for name in gfile.list_dir(directory)
            if name.isdigit() and not _is_partial(directory, name)
        )


def path_of(directory: str, position: int) -> str:
    """The directory of the checkpoint at a position in examples."""
    return os.path.join(directory, _name(position))


def newest_undamaged(directory: str) -> int | None:
    """Finds the newest intact checkpoint; logs a warning for each newer one, which is damaged.

    Returns:
      Its position in examples; None if there is no checkpoint.

    Raises:
      ConfigurationError: there are checkpoints, but all of them are damaged.
    """
    saved = list_checkpoints(directory)
    damage: str | None = None
    for position in reversed(saved):
        path = path_of(directory, position)
        damage = manifest.verify(path, examples=position)
        if damage is None:
            return position
        logging.warning("checkpoint %s is damaged (%s); trying the one before it", path, damage)
    if saved:
        raise ConfigurationError(
            f"{directory}: none of its {len(saved)} checkpoints can be read ({_name(saved[0])}: {damage}); "
            "restore one from a copy, or start again in another --workdir"
        )
    return None


def restore_latest(train_state: TrainState, directory: str) -> int | None:
    """Restores the newest intact checkpoint.

    Returns:
      Its position in examples; None if there is no checkpoint.

    Raises:
      ConfigurationError: all checkpoints are damaged, or the newest intact one does not fit the networks.
    """
    position = newest_undamaged(directory)
    if position is not None:
        load(train_state, directory, position)
    return position


def restore(train_state: TrainState, directory: str, position: int) -> None:
    """Verifies and restores the checkpoint at a position.

    Raises:
      ConfigurationError: it is damaged, or does not fit the networks; the state is then unchanged.
    """
    check_intact(directory, position)
    load(train_state, directory, position)


def check_intact(directory: str, position: int) -> None:
    """Raises ConfigurationError if the checkpoint at a position is damaged."""
    path = path_of(directory, position)
    damage = manifest.verify(path, examples=position)
    if damage is not None:
        raise ConfigurationError(f"{path}: damaged ({damage}); choose another checkpoint")


def read_networks(directory: str, position: int) -> dict[str, dict[int, np.ndarray]]:
    """Reads the weights of all networks in a checkpoint that is known to be intact, whatever they are.

    Args:
      directory: holds the checkpoint.
      position: of it, in examples.

    Returns:
      "network/NAME", or "averaged/NAME" for moving averages -> {number of the weight in the network: array}.
    """
    networks: dict[str, dict[int, np.ndarray]] = {}
    with open_checkpoint(os.path.join(directory, _name(position), _PREFIX)) as reader:
        for name in reader.get_variable_to_shape_map():
            if match := _NETWORK_WEIGHT.fullmatch(name):
                network, number = match.groups()
                networks.setdefault(network, {})[int(number)] = reader.get_tensor(name)
    return networks


def load(train_state: TrainState, directory: str, position: int) -> None:
    """Assigns the values of the checkpoint at a position, which is known to be intact.

    Raises:
      ConfigurationError: it does not fit the networks; the state is then unchanged.
    """
    path = os.path.join(directory, _name(position), _PREFIX)
    with open_checkpoint(path) as reader:
        assign_variables(train_state, reader, path)


def clean_up(directory: str) -> None:
    """Completes or removes what an interrupted `write` left. Only the process that writes may call it."""
    if not tf.io.gfile.isdir(directory):
        return
    names = gfile.list_dir(directory)
    for name in names:
        path = os.path.join(directory, name)
        if name.startswith((_WRITING, _REMOVING)) or (name.isdigit() and _is_partial(directory, name)):
            tf.io.gfile.rmtree(path)
        elif name.startswith(_REPLACED):
            if name.removeprefix(_REPLACED) in names:
                tf.io.gfile.rmtree(path)
            else:  # the new checkpoint was not written, so the old one returns
                tf.io.gfile.rename(path, os.path.join(directory, name.removeprefix(_REPLACED)))


def _write_files(snapshot: Snapshot, directory: str) -> None:
    names, values = zip(*snapshot.values.items(), strict=True)
    prefix = os.path.join(directory, _PREFIX)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(values)
    )
    with open_checkpoint(prefix) as reader:
        for name, value in snapshot.values.items():
            if reader.get_tensor(name).tobytes() != value.numpy().tobytes():
                raise OSError(
                    f"{name} does not read back as it was written: the disk or the memory is faulty"
                )
    manifest.write_manifest(directory, examples=snapshot.examples)


def _link_files(source: str, directory: str, *, examples: int) -> None:
    names = sorted(gfile.list_dir(source), key=lambda name: name == manifest.NAME)  # the manifest last
    for name in names:
        link_or_copy(os.path.join(source, name), os.path.join(directory, name))
    fsync(directory)
    damage = manifest.verify(directory, examples=examples)
    if damage is not None:
        raise OSError(f"{damage}: the disk or the memory is faulty")


def _move_aside(directory: str, position: int) -> None:
    """Renames the checkpoint at a position to make room for a new one; `clean_up` restores or removes it."""
    name = _name(position)
    path = os.path.join(directory, name)
    aside = _REMOVING if manifest.verify(path, examples=position) else _REPLACED
    tf.io.gfile.rename(path, os.path.join(directory, aside + name))


def _remove_old(directory: str, *, keep: int, just_written: int) -> None:
    intact = 0
    for position in reversed(list_checkpoints(directory)):
        path = os.path.join(directory, _name(position))
        if intact < keep:
            intact += position == just_written or manifest.verify(path, examples=position) is None
            continue
        _remove(directory, position)


def _remove(directory: str, position: int) -> None:
    """Removes a checkpoint so that a part of it is never taken for a checkpoint."""
    name = _name(position)
    path = doomed = os.path.join(directory, name)
    if gfile.is_url(directory):
        tf.io.gfile.remove(os.path.join(path, manifest.NAME))
    else:
        doomed = os.path.join(directory, _REMOVING + name)
        tf.io.gfile.rename(path, doomed)
    tf.io.gfile.rmtree(doomed)


def _is_partial(directory: str, name: str) -> bool:
    """Whether a directory that is named by a number is a checkpoint partly written or partly removed."""
    return gfile.is_url(directory) and not tf.io.gfile.exists(os.path.join(directory, name, manifest.NAME))


def _name(position: int) -> str:
    return f"{position:08d}"


def _remove_partial(directory: str) -> None:
    try:
        tf.io.gfile.rmtree(directory)
    except tf.errors.OpError:
        pass  # its name does not count as a checkpoint, and `clean_up` removes it
