"""Files wherever they lie: on a disk, or in a store that TensorFlow reaches by URL (gs://, ram://, ...).

On a disk Python's own functions are used, which know names that are not UTF-8, links and devices. What goes
wrong in a store is raised as the `OSError` that a disk would have raised.
"""

import contextlib
import errno
import fnmatch
import glob
import io
import os

import tensorflow as tf

_ERROR_NUMBERS = {
    tf.errors.NotFoundError: errno.ENOENT,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.UnauthenticatedError: errno.EACCES,
    tf.errors.AlreadyExistsError: errno.EEXIST,
}
_BUFFER_BYTES = 2**16


def is_url(path):
    """Whether a path lies in a store, and so is for `tf.io.gfile` alone."""
    return "://" in os.fspath(path)


def exists(path):
    """Whether there is a file or folder of that name."""
    with _os_errors(path):
        return tf.io.gfile.exists(path) if is_url(path) else os.path.exists(path)


def is_folder(path):
    """Whether there is a folder of that name."""
    if not is_url(path):
        return os.path.isdir(path)
    with _os_errors(path):
        # To `isdir` whatever goes wrong means no; `exists` raises it.
        return tf.io.gfile.exists(path) and tf.io.gfile.isdir(path)


def is_file(path):
    """Whether there is a file of that name, on a disk a regular one."""
    return exists(path) and not is_folder(path) if is_url(path) else os.path.isfile(path)


def names_in(folder):
    """The names of what a folder holds, sorted; raises an OSError if it cannot be read."""
    if not is_url(folder):
        return sorted(os.listdir(folder))
    with _os_errors(folder):
        # Some stores add a slash to folders, or list the folder itself.
        return sorted(filter(None, (name.rstrip("/") for name in tf.io.gfile.listdir(folder))))


def size_and_change(path):
    """(bytes, time of the last change in ns, 0 where a store keeps none) of a file."""
    if not is_url(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    with _os_errors(path):
        status = tf.io.gfile.stat(path)
    return status.length, status.mtime_nsec


def open_binary(path):
    """Opens a file for reading, with all that Python's files can do but `fileno`."""
    return io.BufferedReader(_StoredFile(path), _BUFFER_BYTES) if is_url(path) else open(path, "rb")


def open_text(path, newline=None):
    """Opens a text of UTF-8, with or without a byte order mark, for reading; `newline` as of `open`."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline=newline)


def matching(pattern):
    """The paths that fit a glob pattern, sorted; `**` stands for any number of folders, hidden ones apart."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    scheme, _, rest = pattern.partition("://")
    bucket, *parts = rest.split("/")
    return sorted(set(_matching(f"{scheme}://{bucket}", parts)))


def _matching(folder, parts):
    """Paths below a folder of a store that fit the rest of a pattern."""
    if not parts:
        yield folder
        return
    first, *rest = parts
    if not glob.has_magic(first):
        path = os.path.join(folder, first)
        if rest or exists(path):
            yield from _matching(path, rest)
        return
    if not is_folder(folder):
        return
    if first == "**" and rest:
        yield from _matching(folder, rest)
    for name in names_in(folder):
        path = os.path.join(folder, name)
        if name.startswith(".") and not first.startswith("."):
            continue
        if first == "**":
            yield from _matching(path, parts if rest else [])
            if not rest and is_folder(path):
                yield from _matching(path, parts)
        elif fnmatch.fnmatchcase(name, first):
            yield from _matching(path, rest)


class _StoredFile(io.RawIOBase):
    """A file of a store with the methods that Python's buffered and text files are built on."""

    def __init__(self, path):
        super().__init__()
        self._path, self._position = path, 0
        with _os_errors(path):
            self._file = tf.io.gfile.GFile(path, "rb")
            self._size_bytes = self._file.size()

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self):
        return self._position

    def readinto(self, buffer):
        if self._position >= self._size_bytes:
            return 0
        with _os_errors(self._path):
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            contents = self._file.read(len(buffer))
        buffer[: len(contents)] = contents
        self._position += len(contents)
        return len(contents)

    def close(self):
        if not self.closed:
            self._file.close()
        super().close()


@contextlib.contextmanager
def _os_errors(path):
    """Raises what TensorFlow raises of a path as the OSError of that meaning."""
    try:
        yield
    except tf.errors.OpError as error:
        said = (error.message or type(error).__name__).split("\n")[0]
        raise OSError(_ERROR_NUMBERS.get(type(error), errno.EIO), said, os.fspath(path)) from error
