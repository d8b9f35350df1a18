"""Files and folders on a disk, or in an object store that TensorFlow supports by URL (gs://, ram://, ...).

For paths on a disk, Python's own functions are used, which handle names that are not UTF-8, links and
devices. For URLs, `tf.io.gfile` is used; its errors become the `OSError` that a disk would raise.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob as python_glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

Path = str | os.PathLike[str]

_ERROR_NUMBERS = {
    tf.errors.NotFoundError: errno.ENOENT,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.UnauthenticatedError: errno.EACCES,
    tf.errors.AlreadyExistsError: errno.EEXIST,
}
_BUFFER_BYTES = 2**16


def is_url(path: Path) -> bool:
    """Whether a path is in an object store, so that only `tf.io.gfile` can read it."""
    return "://" in os.fspath(path)


def exists(path: Path) -> bool:
    """Whether there is a file or directory at this path."""
    with _os_errors(path):
        return tf.io.gfile.exists(path) if is_url(path) else os.path.exists(path)


def is_dir(path: Path) -> bool:
    """Whether there is a directory at this path."""
    if not is_url(path):
        return os.path.isdir(path)
    with _os_errors(path):
        # `isdir` returns False on every error; `exists` raises it.
        return tf.io.gfile.exists(path) and tf.io.gfile.isdir(path)


def is_file(path: Path) -> bool:
    """Whether there is a file at this path; on a disk, a regular file."""
    return exists(path) and not is_dir(path) if is_url(path) else os.path.isfile(path)


def list_dir(directory: Path) -> list[str]:
    """Returns the sorted names of the entries of a directory.

    Raises:
      OSError: the directory cannot be read.
    """
    if not is_url(directory):
        return sorted(os.listdir(os.fspath(directory)))
    with _os_errors(directory):
        # Some stores add a slash to directories, or list the directory itself.
        return sorted(filter(None, (name.rstrip("/") for name in tf.io.gfile.listdir(directory))))


def size_and_mtime(path: Path) -> tuple[int, int]:
    """Returns the size of a file in bytes, and its modification time in ns (0 if a store has none)."""
    if not is_url(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    with _os_errors(path):
        status = tf.io.gfile.stat(path)
    return status.length, status.mtime_nsec


@contextlib.contextmanager
def new_dir(path: Path) -> Iterator[None]:
    """Makes a directory and its parents, unless they exist, for the block to write in.

    If that or the block fails, as with a path that is too long, the directories that it made are removed,
    unless they hold files.

    Raises:
      OSError, tf.errors.OpError: a directory cannot be made.
    """
    path = os.fspath(path)
    made: list[str] = []
    parent = path
    while not is_url(path) and parent and not os.path.lexists(parent):
        made.append(parent)
        parent = os.path.dirname(parent)
    try:
        tf.io.gfile.makedirs(path)
        yield
    except BaseException:
        for directory in made:
            with contextlib.suppress(OSError):  # was not made, or holds files
                os.rmdir(directory)
        raise


def open_binary(path: Path) -> io.BufferedReader:
    """Opens a file for reading; in a store, it supports what Python's files do, except `fileno`."""
    return io.BufferedReader(_StoredFile(path), _BUFFER_BYTES) if is_url(path) else open(path, "rb")


def open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    """Opens a UTF-8 text, with or without a byte order mark, for reading; `newline` as in `open`."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline=newline)


def glob(pattern: str) -> list[str]:
    """Returns the sorted paths that match a pattern, as Python's `glob` with `recursive=True` does.

    But `**` enters each directory once, even if links lead back to it. `tf.io.gfile.glob` has no `**`, and
    also matches hidden files.
    """
    if not is_url(pattern):
        return sorted(set(_glob_on_disk(pattern)))
    scheme, _, rest = pattern.partition("://")
    bucket, *parts = rest.split("/")
    return sorted(set(_glob(f"{scheme}://{bucket}", parts)))


def reason_of(error: OSError | tf.errors.OpError) -> str:
    """Returns the reason in an error of the system or a store, without what TensorFlow adds to it."""
    reason = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    reason = re.sub(r"\{\{.*?\}\}", "", reason)  # the name of the operation
    reason = reason.split(";")[-1]  # "PATH; REASON"
    return " ".join(reason.split()) or type(error).__name__  # ram:// gives no reason


def _glob_on_disk(pattern: str) -> Iterator[str]:
    """Yields the paths on a disk that match a pattern; it may yield one twice."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from python_glob.glob(pattern)
        return
    before, after = parts[: parts.index("**")], parts[parts.index("**") + 1 :]
    for start in python_glob.glob("/".join([*before, ""])) if before else [""]:
        for directory in _directories(start):
            yield from _glob_on_disk(python_glob.escape(directory) + "/".join(after or ["*"]))


def _directories(start: str) -> Iterator[str]:
    """Yields a directory ("" or with a slash at its end) and all below it that are not hidden, each once."""
    entered = set()
    for directory, names, _ in os.walk(start or os.curdir, followlinks=True):
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in entered:
            names.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        below = os.path.relpath(directory, start or os.curdir)
        yield start if below == os.curdir else f"{start}{below}/"


def _glob(directory: str, parts: Sequence[str]) -> Iterator[str]:
    """Yields the paths in a directory of a store that match the remaining parts of a pattern."""
    if not parts:
        yield directory
        return
    first, *rest = parts
    if not python_glob.has_magic(first):
        path = os.path.join(directory, first)
        if rest or exists(path):
            yield from _glob(path, rest)
    elif is_dir(directory):
        if first == "**":
            yield from _glob_recursively(directory, rest)
            return
        for name in list_dir(directory):
            is_hidden = name.startswith(".") and not first.startswith(".")
            if fnmatch.fnmatchcase(name, first) and not is_hidden:
                yield from _glob(os.path.join(directory, name), rest)


def _glob_recursively(directory: str, parts: Sequence[str]) -> Iterator[str]:
    """Yields the paths at any depth of a directory of a store that match the parts after `**`."""
    if parts:
        yield from _glob(directory, parts)
    for name in list_dir(directory):
        if name.startswith("."):
            continue
        path = os.path.join(directory, name)
        if not parts:
            yield path
        if is_dir(path):
            yield from _glob_recursively(path, parts)


class _StoredFile(io.RawIOBase):
    """A file in a store, with the methods that Python's buffered and text files need."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._position = path, 0
        with _os_errors(path):
            self._file = tf.io.gfile.GFile(path, "rb")
            self._size_bytes = self._file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size_bytes:
            return 0
        with _os_errors(self._path):
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            contents = self._file.read(len(buffer))
        buffer[: len(contents)] = contents
        self._position += len(contents)
        return len(contents)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Raises TensorFlow's errors about a path as the corresponding OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        number = _ERROR_NUMBERS.get(type(error), errno.EIO)
        raise OSError(number, reason_of(error), os.fspath(path)) from error
