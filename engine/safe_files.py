"""Writing files so that a crash, a full disk or a kill loses nothing that was there before."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator

import tensorflow as tf

from engine.task import ConfigurationError


@contextlib.contextmanager
def explained_writing(path: str) -> Iterator[None]:
    """Turns a failure to write `path` into one line that says what, where and how to mend it.

    Raises:
      ConfigurationError: the disk is full, the directory cannot be written, ...
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
        reason = re.sub(r"\{\{.*?\}\}", "", reason)  # TensorFlow's name of the operation
        reason = reason.split(";")[-1]  # the system's words follow the path
        raise ConfigurationError(
            f"{path}: cannot be written ({' '.join(reason.split())}); make room there or make it "
            "writable, then the same command goes on from the last checkpoint"
        ) from error


def flush(path: str) -> None:
    """Has a file, or the entries of a directory, written to the disk itself.

    Does nothing where the path is not of the local file system: others keep what they have closed.
    """
    if "://" in path:
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
    with explained_writing(path):
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        flush(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)


def append_text(path: str, text: str) -> None:
    """Appends to a file, and closes it so that nothing waits in a buffer.

    Raises:
      ConfigurationError: it cannot be written; a part of the text may stand there.
    """
    with explained_writing(path), tf.io.gfile.GFile(path, "a") as file:
        file.write(text)
