"""Files that appear once they are whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import tensorflow as tf

from data import gfile


@contextlib.contextmanager
def whole_file(path: str, *, flushes: bool = True) -> Iterator[str]:
    """Yields a temporary path on the disk, of the same extension; the file there becomes `path` at the end.

    If the block raises, as when the user interrupts it, nothing stays, and a file that `path` named before is
    unchanged. After a kill the temporary file stays: `.NAME.partial.EXTENSION`, which the next try replaces.

    Args:
      path: of the file; its folder is made if missing. To a store the file is copied at the end.
      flushes: whether the file is on the disk before it gets its name: a loss of power does not empty it.

    Raises:
      OSError, tf.errors.OpError: the file cannot be written.
    """
    folder, name = os.path.split(path)
    stem, extension = os.path.splitext(name)
    temporary_name = f".{stem}.partial{extension}"
    with contextlib.ExitStack() as stack:
        if gfile.is_url(path):
            local = stack.enter_context(tempfile.TemporaryDirectory())
        else:
            local = folder
            stack.enter_context(gfile.new_dir(folder or os.curdir))
        temporary = os.path.join(local, temporary_name)
        try:
            yield temporary
            if gfile.is_url(path):
                tf.io.gfile.makedirs(folder)
                tf.io.gfile.copy(temporary, path, overwrite=True)
            else:
                if flushes:
                    _flush(temporary)
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # renamed, or never made
                os.remove(temporary)


def _flush(path: str) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
