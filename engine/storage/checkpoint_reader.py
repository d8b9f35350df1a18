"""Reading the variables of a checkpoint, wherever it lies."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import tensorflow as tf

from data import gfile

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
