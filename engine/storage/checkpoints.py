"""Saving and restoring the whole state of a run.

A checkpoint is a directory named by its position, `00004000/`:

state.index, state.data-00000-of-00001   the variables under the names of `TrainState.variables()`
manifest.json                            position, sizes and digests, written last; see `engine.storage.manifest`

It is written beside under another name, flushed to the disk, read back, and renamed when that agrees,
so a directory with a number for a name was a whole checkpoint. In a store (gs://, ...), where no
directory can be renamed, it is written under its own name and is a checkpoint once it has its manifest.
Whether it still is a whole one, is checked before it is restored, and before older ones are removed in
its favour.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from engine.errors import ConfigurationError
from engine.inner_loop.train_state import TrainState
from engine.storage import manifest
from engine.storage.atomic_files import flush, in_store, reraise_read_errors, reraise_write_errors

_PREFIX = "state"
_OPTIONAL = ("decision/", "noise_scale/", "loss_scale/")
# Directories that are no checkpoints: being written, being removed, giving way to one of the same position.
_WRITING, _REMOVING, _REPLACED = "writing-", "removing-", "replaced-"

# Not `tf.train.load_checkpoint`, which first asks whether the prefix is a directory; ram:// says yes.
_open_checkpoint = tf.compat.v1.train.NewCheckpointReader


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of one instant.

    Args:
      examples: its position.
      values: of all variables, by name, in the host's memory.
    """

    examples: int
    values: Mapping[str, tf.Tensor]


def take_snapshot(train_state: TrainState) -> Snapshot:
    """Takes the state as it is now; training may go on at once.

    On a CPU a value shares the variable's memory until training next writes to that variable, on
    accelerators it is copied here: in the end the host holds the state a second time. Every worker must
    call this, since reading some variables is a collective.
    """
    with tf.device("CPU:0"):
        values = {
            name: tf.identity(variable.read_value()) for name, variable in train_state.variables().items()
        }
    return Snapshot(examples=int(values["examples"]), values=values)


def save(train_state: TrainState, directory: str, *, keep: int, is_chief: bool = True) -> None:
    """Writes a checkpoint of the current position; see `write`. Every worker calls it, the chief writes."""
    snapshot = take_snapshot(train_state)
    if is_chief:
        write(snapshot, directory, keep=keep)


def write(snapshot: Snapshot, directory: str, *, keep: int) -> None:
    """Writes a checkpoint, then drops all older than the newest `keep` that are undamaged.

    Args:
      keep: at least 1.

    Raises:
      ConfigurationError: it cannot be written; the checkpoints before it are all there.
    """
    name = _name(snapshot.examples)
    final = os.path.join(directory, name)
    temporary = final if in_store(directory) else os.path.join(directory, _WRITING + name)
    with reraise_write_errors(final):
        tidy(directory)
        try:
            if in_store(directory) and tf.io.gfile.exists(final):
                _remove(directory, snapshot.examples)
            tf.io.gfile.makedirs(temporary)
            _write_files(snapshot, temporary)
            if temporary != final:
                if tf.io.gfile.exists(final):
                    _give_way(directory, snapshot.examples)
                tf.io.gfile.rename(temporary, final)
        except (OSError, tf.errors.OpError):
            _remove_quietly(temporary)  # a full disk has better uses
            raise
        flush(directory)
        tidy(directory)
        _prune(directory, keep=keep, just_written=snapshot.examples)


def positions(directory: str) -> list[int]:
    """Positions in examples of the checkpoints, rising.

    Raises:
      ConfigurationError: the directory cannot be read.
    """
    with reraise_read_errors(directory):
        # To `isdir` alone whatever goes wrong means no, and the run would begin anew.
        if not (tf.io.gfile.exists(directory) and tf.io.gfile.isdir(directory)):
            return []
        return sorted(
            int(name) for name in _listed(directory) if name.isdigit() and not _is_partial(directory, name)
        )


def newest_undamaged(directory: str) -> int | None:
    """Position of the newest checkpoint that is as it was written; a warning names each newer one.

    Returns:
      None if there is no checkpoint.

    Raises:
      ConfigurationError: there are checkpoints, but all of them are damaged.
    """
    saved = positions(directory)
    wrong = ""
    for position in reversed(saved):
        path = os.path.join(directory, _name(position))
        wrong = manifest.damage(path, examples=position)
        if wrong is None:
            return position
        logging.warning("checkpoint %s is damaged (%s); trying the one before it", path, wrong)
    if saved:
        raise ConfigurationError(
            f"{directory}: none of its {len(saved)} checkpoints can be read ({_name(saved[0])}: {wrong}); "
            "restore one from a copy, or start again in another --workdir"
        )
    return None


def restore_latest(train_state: TrainState, directory: str) -> int | None:
    """Restores the newest undamaged checkpoint.

    Returns:
      Its position in examples; None if there is no checkpoint.

    Raises:
      ConfigurationError: there are checkpoints, but all of them are damaged, or it does not fit.
    """
    position = newest_undamaged(directory)
    if position is not None:
        read(train_state, directory, position)
    return position


def restore(train_state: TrainState, directory: str, position: int) -> None:
    """Restores the checkpoint at a position.

    Raises:
      ConfigurationError: it is damaged, or holds other variables than the configured networks have; the
        state is then left as it was.
    """
    path = os.path.join(directory, _name(position))
    wrong = manifest.damage(path, examples=position)
    if wrong is not None:
        raise ConfigurationError(f"{path}: damaged ({wrong}); choose another checkpoint")
    read(train_state, directory, position)


def read(train_state: TrainState, directory: str, position: int) -> None:
    """Takes over the values of the checkpoint at a position, which is known to be undamaged.

    Raises:
      ConfigurationError: it holds other variables than the configured networks have; the state is then
        left as it was.
    """
    path = os.path.join(directory, _name(position), _PREFIX)
    reader = _open_checkpoint(path)
    shapes = reader.get_variable_to_shape_map()
    # A run may go on with another batch schedule or precision: what only that one remembers starts afresh.
    variables = {
        name: variable
        for name, variable in train_state.variables().items()
        if name in shapes or not name.startswith(_OPTIONAL)
    }
    surplus = {name for name in shapes.keys() - variables.keys() if not name.startswith(_OPTIONAL)}
    misfits = sorted(surplus | (variables.keys() - shapes.keys())) or [
        f"{name} of shape {shapes[name]}, here {variable.shape.as_list()}"
        for name, variable in variables.items()
        if shapes[name] != variable.shape.as_list()
    ]
    types = reader.get_variable_to_dtype_map()
    misfits = misfits or [
        f"{name} in {types[name].name}, here {variable.dtype.name}"
        for name, variable in variables.items()
        if types[name] != variable.dtype
    ]
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ConfigurationError(
            f"{path}: does not fit the configured networks and optimizers ({', '.join(misfits[:3])}{more}); "
            "use the configuration it was trained with, or another --workdir"
        )
    for name, variable in variables.items():
        variable.assign(reader.get_tensor(name))


def tidy(directory: str) -> None:
    """Clears away what an interrupted `write` left; only for the one process that writes there."""
    if not tf.io.gfile.isdir(directory):
        return
    names = _listed(directory)
    for name in names:
        path = os.path.join(directory, name)
        if name.startswith((_WRITING, _REMOVING)) or (name.isdigit() and _is_partial(directory, name)):
            tf.io.gfile.rmtree(path)
        elif name.startswith(_REPLACED):
            if name.removeprefix(_REPLACED) in names:
                tf.io.gfile.rmtree(path)
            else:  # its successor did not arrive
                tf.io.gfile.rename(path, os.path.join(directory, name.removeprefix(_REPLACED)))


def _write_files(snapshot: Snapshot, directory: str) -> None:
    names, values = zip(*snapshot.values.items(), strict=True)
    prefix = os.path.join(directory, _PREFIX)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=list(values)
    )
    reader = _open_checkpoint(prefix)
    for name, value in snapshot.values.items():
        if reader.get_tensor(name).tobytes() != value.numpy().tobytes():
            raise OSError(f"{name} is read back as something else; the disk or the memory is faulty")
    manifest.write_manifest(directory, examples=snapshot.examples)


def _give_way(directory: str, position: int) -> None:
    """Moves the checkpoint at a position aside for a new one; `tidy` completes either way."""
    name = _name(position)
    path = os.path.join(directory, name)
    aside = _REMOVING if manifest.damage(path, examples=position) else _REPLACED
    tf.io.gfile.rename(path, os.path.join(directory, aside + name))


def _prune(directory: str, *, keep: int, just_written: int) -> None:
    undamaged = 0
    for position in reversed(positions(directory)):
        path = os.path.join(directory, _name(position))
        if undamaged < keep:
            undamaged += position == just_written or manifest.damage(path, examples=position) is None
            continue
        _remove(directory, position)


def _remove(directory: str, position: int) -> None:
    """Removes a checkpoint so that no half of it is ever taken for one."""
    name = _name(position)
    path = doomed = os.path.join(directory, name)
    if in_store(directory):
        tf.io.gfile.remove(os.path.join(path, manifest.NAME))
    else:
        doomed = os.path.join(directory, _REMOVING + name)
        tf.io.gfile.rename(path, doomed)
    tf.io.gfile.rmtree(doomed)


def _is_partial(directory: str, name: str) -> bool:
    """Whether a directory with a number for a name never was, or is no more, a whole checkpoint."""
    return in_store(directory) and not tf.io.gfile.exists(os.path.join(directory, name, manifest.NAME))


def _name(position: int) -> str:
    return f"{position:08d}"


def _listed(directory: str) -> list[str]:
    return [name.rstrip("/") for name in tf.io.gfile.listdir(directory)]  # some file systems add the slash


def _remove_quietly(directory: str) -> None:
    try:
        tf.io.gfile.rmtree(directory)
    except tf.errors.OpError:
        pass  # it is not taken for a checkpoint, and `tidy` removes it
