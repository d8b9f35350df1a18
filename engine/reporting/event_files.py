"""TensorBoard's event files: the only reader and writer of their records."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.util.event_pb2 import Event

from data import gfile
from engine.errors import ConfigurationError
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors


def is_event_file(name: str) -> bool:
    """Whether TensorBoard would read a file of this name."""
    return ".tfevents." in name and not name.endswith(".tmp")


def list_event_files(directory: str) -> list[str]:
    """Paths of the event files in a directory, without those in its sub-directories, by name."""
    names = gfile.list_dir(directory)
    return [os.path.join(directory, name) for name in sorted(names) if is_event_file(name)]


def read_events(path: str, *, up_to_damage: bool = True) -> Iterator[Event]:
    """The events of a file, up to an incomplete last one, which a killed process or a running one leaves.

    Args:
      path: of the file.
      up_to_damage: end at a damaged event too, instead of raising.

    Raises:
      ConfigurationError: the file cannot be read, or is damaged.
    """
    count = 0
    try:
        with reraise_read_errors(path):
            for record in _records(path):
                yield Event.FromString(record)
                count += 1
    except (_DamagedError, DecodeError) as error:
        if not up_to_damage:
            raise ConfigurationError(
                f"{path}: is damaged after {count} event{'' if count == 1 else 's'}, or is no event file; "
                "remove it, or use the events before the damage with --up_to_damage"
            ) from error


def write_events(path: str, events: Iterable[Event]) -> None:
    """Writes an event file so that a reader sees the old file or the new one, never a part of it.

    Raises:
      ConfigurationError: it cannot be written; an old file is then unchanged.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with reraise_write_errors(path, remedy="make room there or make it writable"):
            with tf.io.TFRecordWriter(temporary) as writer:
                for event in events:
                    writer.write(event.SerializeToString())
            tf.io.gfile.rename(temporary, path, overwrite=True)
    finally:
        if gfile.exists(temporary):
            tf.io.gfile.remove(temporary)


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
        if name.endswith(".tmp"):  # left by a process that was killed here
            tf.io.gfile.remove(os.path.join(directory, name))
    for path in list_event_files(directory):
        if any(event.step > examples for event in read_events(path)):
            write_events(path, (event for event in read_events(path) if event.step <= examples))


class _DamagedError(Exception):
    """A record is damaged: neither complete nor cut off at the end of the file."""


def _records(path: str) -> Iterator[bytes]:
    try:
        yield from tf.data.TFRecordDataset(path).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        if "truncated record" not in str(error):
            raise _DamagedError from error
