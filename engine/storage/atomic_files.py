"""Writing files so that a crash, a full disk or a kill loses nothing that was there before.

Paths are those of `data.gfile`, which reads; this module only writes. A store keeps a file once it is
closed, so nothing needs to be flushed there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid

import tensorflow as tf

from data import gfile
from engine.storage.file_errors import reraise_write_errors


def fsync(path: str) -> None:
    """Flushes a file, or the entries of a directory, to the disk. Does nothing in a store."""
    if gfile.is_url(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not support it
            raise
    finally:
        os.close(descriptor)


def link_or_copy(source: str, target: str) -> None:
    """Gives a file that never changes a second path, by a hard link; copies it where that is not possible."""
    if not (gfile.is_url(source) or gfile.is_url(target)):
        try:
            os.link(source, target)
            return
        except OSError:  # FAT, some network file systems, another device; a copy fails if it must
            pass
    tf.io.gfile.copy(source, target)
    fsync(target)


def write_text(path: str, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new one, never a part of it.

    Raises:
      ConfigurationError: it cannot be written; the old text stays.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"  # several workers may write the same file at once
    with reraise_write_errors(path):
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        fsync(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)


def write_bytes(path: str, contents: bytes) -> None:
    """Writes a file so that a reader sees none or all of it.

    It is not flushed to the disk: after a loss of power the file may be empty.

    Raises:
      OSError, tf.errors.OpError: it cannot be written; nothing stays of it.
    """
    # A name of its own: that of the file may be as long as names can be. Hidden, so that no program reads it.
    hidden = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    temporary = path if gfile.is_url(path) else hidden
    try:
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(contents)
        if temporary != path:
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # it was not made
            os.remove(hidden)
        raise


def append_text(path: str, text: str) -> None:
    """Appends to a file and closes it, so that nothing waits in a buffer.

    Raises:
      ConfigurationError: it cannot be written; a part of the text may have been appended.
    """
    with reraise_write_errors(path), tf.io.gfile.GFile(path, "a") as file:
        file.write(text)
