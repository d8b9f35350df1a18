"""Reading the variables of a checkpoint, wherever it lies, and assigning them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping

import tensorflow as tf

from data import gfile
from engine.errors import ConfigurationError
from engine.inner_loop.train_state import TrainState

# Prefixes of variables that only some settings have: schedules, early stopping, precisions.
_OPTIONAL = ("decision/", "noise_scale/", "loss_scale/")

_PATTERN_CHARACTERS = set("*?[]\\")


@contextlib.contextmanager
def open_checkpoint(prefix: str) -> Iterator[tf.train.CheckpointReader]:
    """Opens the checkpoint whose files begin with a prefix, as long as the block runs.

    TensorFlow takes the prefix for a pattern and cannot be told not to. So where the path contains characters
    of a pattern, the files are first copied to where it does not.
    """
    with contextlib.ExitStack() as stack:
        if _PATTERN_CHARACTERS & set(prefix):
            directory, name = os.path.split(prefix)
            copies = stack.enter_context(tempfile.TemporaryDirectory())
            for file in gfile.list_dir(directory):
                if file.startswith(f"{name}."):
                    tf.io.gfile.copy(os.path.join(directory, file), os.path.join(copies, file))
            prefix = os.path.join(copies, name)
        # `tf.train.load_checkpoint` first asks whether the prefix is a directory. On ram:// it is one, as the
        # beginning of any file's name counts as a directory there.
        yield tf.compat.v1.train.NewCheckpointReader(prefix)


def assign_variables(train_state: TrainState, reader: tf.train.CheckpointReader, path: str) -> None:
    """Assigns the values of a checkpoint to the variables.

    Args:
      train_state: gets the values.
      reader: of the checkpoint.
      path: of the checkpoint, for the error message.

    Raises:
      ConfigurationError: it does not fit the networks; the state is then unchanged.
    """
    stored = reader.get_variable_to_shape_map()
    # A run may continue with another batch schedule or precision, whose own variables then start afresh.
    variables = {
        name: variable
        for name, variable in train_state.variables().items()
        if name in stored or not name.startswith(_OPTIONAL)
    }
    misfits = _misfits(reader, variables)
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ConfigurationError(
            f"{path}: does not fit the configured networks and optimizers ({', '.join(misfits[:3])}{more}); "
            "use the configuration it was trained with, or another --workdir"
        )
    for name, variable in variables.items():
        variable.assign(reader.get_tensor(name))


def _misfits(reader: tf.train.CheckpointReader, variables: Mapping[str, tf.Variable]) -> list[str]:
    """How a checkpoint differs from the variables: names, else shapes, else dtypes."""
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    surplus = {name for name in shapes.keys() - variables.keys() if not name.startswith(_OPTIONAL)}
    return (
        sorted(surplus | (variables.keys() - shapes.keys()))
        or [
            f"{name} of shape {shapes[name]}, here {variable.shape.as_list()}"
            for name, variable in variables.items()
            if shapes[name] != variable.shape.as_list()
        ]
        or [
            f"{name} in {dtypes[name].name}, here {variable.dtype.name}"
            for name, variable in variables.items()
            if dtypes[name] != variable.dtype
        ]
    )
