"""Writes a packed run: the manifest, then every file, in a .tar that depends on their contents only."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from typing import IO

import tensorflow as tf

from data import gfile
from engine.errors import ConfigurationError
from engine.packing import manifest
from engine.packing.manifest import Manifest, ManifestError, PackedFile
from engine.packing.run_files import Source
from engine.storage.atomic_files import fsync
from engine.storage.file_errors import reraise_write_errors

_CHUNK_BYTES = 2**20
_MODIFIED_SEC = 315619200  # 2 January 1980: wheels, which may be built from these files, know no earlier time
_REMEDY = "make room there, or choose another --output"


def write_archive(sources: Sequence[Source], output: str, *, part: str, examples: int) -> Manifest:
    """Packs files. The archive appears under its name once it is complete.

    Each file is read twice: for its digest, which comes first in the archive, and to be copied. A file that
    grows meanwhile, as logs do, is packed as it was when it was read first.

    Args:
      sources: the files. Their order does not matter.
      output: path of the archive, which may be in an object store; an existing one is replaced.
      part: of the run.
      examples: position of the newest checkpoint.

    Returns:
      What the archive holds.

    Raises:
      ConfigurationError: a file cannot be read, has a name that cannot be packed, or has changed while it was
        packed; or the archive cannot be written.
    """
    by_name = {source.name: source for source in sorted(sources, key=lambda source: source.name)}
    packed = Manifest(part=part, examples=examples, files=_measure(by_name))
    text = packed.to_text().encode()
    try:
        manifest.check(packed)
        if len(text) > manifest.LARGEST_BYTES:
            raise ManifestError(f"takes {len(text)} bytes to list, more than {manifest.LARGEST_BYTES}")
    except ManifestError as error:
        raise ConfigurationError(
            f"{error}, so it cannot be packed; rename or remove it, or use --part=latest"
        ) from error
    temporary = f"{output}.{uuid.uuid4().hex}.tmp"
    with reraise_write_errors(f"--output={output}", remedy=_REMEDY), _new_parent(output):
        _check_room(output, len(text) + sum(file.bytes for file in packed.members.values()))
        try:
            with tf.io.gfile.GFile(temporary, "wb") as file:
                _write_members(file, text, by_name, packed)
            fsync(temporary)
            tf.io.gfile.rename(temporary, output, overwrite=True)
        except BaseException:
            with contextlib.suppress(OSError, tf.errors.OpError):
                tf.io.gfile.remove(temporary)
            raise
    return packed


def _measure(sources: dict[str, Source]) -> dict[str, PackedFile]:
    """Size and digest of each file; the files of two checkpoints that are the same are stored once."""
    files: dict[str, PackedFile] = {}
    first: dict[tuple[int, str], str] = {}  # of those that may be shared: the contents -> the path
    # Members are those in checkpoints/, so that training goes on from what any other program unpacks, too.
    for name, source in sorted(
        sources.items(), key=lambda item: not item[0].startswith(manifest.MAY_SHARE[0])
    ):
        digest, size = hashlib.sha256(), 0
        with _reading(source) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        key = (size, digest.hexdigest())
        original = first.setdefault(key, name) if name.startswith(manifest.MAY_SHARE) else name
        files[name] = PackedFile(bytes=size, sha256=key[1], same_as=None if original == name else original)
    return dict(sorted(files.items()))


def _write_members(file: IO[bytes], text: bytes, sources: dict[str, Source], packed: Manifest) -> None:
    """Writes the archive into an open file, of which only `write` is used."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT, bufsize=_CHUNK_BYTES) as archive:
        archive.addfile(_member(manifest.NAME, len(text)), io.BytesIO(text))
        for name, entry in packed.members.items():
            with _reading(sources[name]) as source:
                copied = _Unchanged(source, entry, sources[name].path)
                archive.addfile(_member(name, entry.bytes), copied)
                copied.check()


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # a regular file of user 0, who has no name
    info.size, info.mtime, info.mode = size, _MODIFIED_SEC, 0o644
    return info


class _Unchanged(io.RawIOBase):
    """The contents of a file as it was when it was measured.

    Args:
      file: at its beginning.
      entry: what was measured.
      path: for the message.
    """

    def __init__(self, file: IO[bytes], entry: PackedFile, path: str):
        super().__init__()
        self._file, self._entry, self._path = file, entry, path
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        with _read_errors(self._path):
            chunk = self._file.read(size)
        if len(chunk) < size:
            self._raise()
        self._digest.update(chunk)
        return chunk

    def check(self) -> None:
        """Raises ConfigurationError if the file has changed."""
        if self._digest.hexdigest() != self._entry.sha256:
            self._raise()

    def _raise(self) -> None:
        raise ConfigurationError(
            f"{self._path}: has changed while it was packed; start the same command again"
        )


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[IO[bytes]]:
    """The file at its beginning."""
    with _read_errors(source.path):
        file = source.file or gfile.open_binary(source.path)
        file.seek(0)
    try:
        yield file
    finally:
        if source.file is None:
            file.close()


@contextlib.contextmanager
def _read_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path}: was removed while the run was packed; start the same command again"
        ) from error
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({gfile.reason_of(error)}); check its permissions and the disk"
        ) from error


def _new_parent(output: str) -> contextlib.AbstractContextManager[None]:
    parent = os.path.dirname(output)
    return gfile.new_dir(parent) if parent else contextlib.nullcontext()


def _check_room(output: str, needed_bytes: int) -> None:
    if gfile.is_url(output):  # a store has no known limit
        return
    free_bytes = shutil.disk_usage(os.path.dirname(output) or os.curdir).free
    if needed_bytes > free_bytes:
        raise OSError(f"it takes {needed_bytes} bytes, and {free_bytes} are free")
