"""Writing files so that a crash, a full disk or a kill loses nothing that was there before.

On a disk as in a store, which TensorFlow reaches by URL (gs://, ram://, ...): there files are kept once they
are closed, and folders can neither be renamed at once nor flushed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator

import tensorflow as tf

from engine.errors import ConfigurationError


def in_store(path: str) -> bool:
    """Whether a path is a URL, and so lies in a store where no folder can be renamed at once."""
    return "://" in path


@contextlib.contextmanager
def reraise_write_errors(path: str) -> Iterator[None]:
    """Turns a failure to write `path` into one line that says what, where and how to mend it.

    Raises:
      ConfigurationError: the disk is full, the directory cannot be written, ...
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({reason_of(error)}); make room there or make it "
            "writable, then the same command goes on from the last checkpoint"
        ) from error


@contextlib.contextmanager
def reraise_read_errors(path: str) -> Iterator[None]:
    """Turns a failure to read `path`, or to look whether it is there, into one line.

    Raises:
      ConfigurationError: permission is denied, there is no store of that name, ...
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({reason_of(error)}); check it") from error


def reason_of(error: OSError | tf.errors.OpError) -> str:
    """The words of the system or the store, without what TensorFlow puts around them."""
    reason = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    reason = re.sub(r"\{\{.*?\}\}", "", reason)  # the name of the operation
    reason = reason.split(";")[-1]  # the system's words follow the path
    return " ".join(reason.split()) or type(error).__name__  # ram:// says nothing


def flush(path: str) -> None:
    """Has a file, or the entries of a directory, written to the disk itself.

    Does nothing in a store, which keeps what is closed.
    """
    if in_store(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)


def write_text(path: str, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new one, never a part.

    Raises:
      ConfigurationError: it cannot be written; the old text stays.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"  # memory may run out on several workers at once
    with reraise_write_errors(path):
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        flush(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)


def append_text(path: str, text: str) -> None:
    """Appends to a file, and closes it so that nothing waits in a buffer.

    Raises:
      ConfigurationError: it cannot be written; a part of the text may stand there.
    """
    with reraise_write_errors(path), tf.io.gfile.GFile(path, "a") as file:
        file.write(text)
