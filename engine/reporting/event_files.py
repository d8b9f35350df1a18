"""TensorBoard's event files of a run that goes on from an earlier position."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import tensorflow as tf

from data import gfile
from engine.storage.file_errors import reraise_write_errors


def cut_event_files(directory: str, examples: int) -> None:
    """Drops the events after the position from which a run resumes, and an incomplete last event.

    Otherwise TensorBoard shows two points at each position that was trained twice.

    Args:
      directory: of the event files; it may be missing.
      examples: the position; events are written at the step that equals their position.

    Raises:
      ConfigurationError: a file cannot be written; it is then unchanged.
    """
    if not gfile.is_dir(directory):
        return
    for name in gfile.list_dir(directory):
        path = os.path.join(directory, name)
        if name.endswith(".tmp"):  # left by a process that was killed here
            tf.io.gfile.remove(path)
        elif ".tfevents." in name and any(event.step > examples for event in _events(path)):
            _rewrite(path, examples)


def _rewrite(path: str, examples: int) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with reraise_write_errors(path):
        with tf.io.TFRecordWriter(temporary) as writer:
            for event in _events(path):
                if event.step <= examples:
                    writer.write(event.SerializeToString())
        tf.io.gfile.rename(temporary, path, overwrite=True)


def _events(path: str) -> Iterator[tf.compat.v1.Event]:
    """The events of a file up to the first that is incomplete or damaged."""
    try:
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)
    except tf.errors.DataLossError:  # what follows was still being written when the process ended
        return
