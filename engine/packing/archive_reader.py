"""Unpacks a packed run that anybody may have written, into a new directory and nowhere else.

Only regular files that the manifest lists are accepted, under plain relative paths, with the sizes and
digests that it gives. Headers are read one by one, and none that can make a reader skip, allocate or link
anything is followed: links, devices, directories, sparse files and extended headers are refused by name, and
so are compressed archives, which are never expanded. Everything is written into a temporary directory beside
the target, which is renamed once every digest is right.

The digests tell damage, not malice: whoever writes an archive can write digests, too. And a run's config.gin
names the Python that runs when the run is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from typing import IO

from data import gfile
from engine.errors import ConfigurationError
from engine.packing import manifest
from engine.packing.manifest import Manifest, ManifestError
from engine.storage.atomic_files import fsync, link_or_copy
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors

_BLOCK_BYTES = tarfile.BLOCKSIZE
_CHUNK_BYTES = 2**20
_LONGEST_NAME_BYTES = 4096

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.DIRTYPE: "a directory",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGLINK: "a link with a long name",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "an extended header",
    tarfile.SOLARIS_XHDTYPE: "an extended header",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK": "zip",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
    """A regular file in an archive.

    Attributes:
      name: its path.
      offset: where its contents begin.
      bytes: its size.
    """

    name: str
    offset: int
    bytes: int


def unpack(archive: str, target: str) -> Manifest:
    """Unpacks an archive into a directory that does not exist yet, or is empty.

    Args:
      archive: path of the archive, which may be in an object store.
      target: the directory, on a disk.

    Returns:
      What was unpacked.

    Raises:
      ConfigurationError: the archive is damaged or refused, the target exists, or the disk is full. Nothing
        is left of what was unpacked.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ConfigurationError("engine.pack: cannot unpack with this Python; update it to 3.11.4 or later")
    if gfile.is_url(target):
        raise ConfigurationError(f"--output={target}: is not on a disk; unpack on a disk, then copy")
    target = os.path.realpath(target)
    _check_is_free(target)
    what = f"--unpack={archive}"
    with reraise_read_errors(what):
        if not gfile.is_file(archive):
            raise ConfigurationError(f"{what}: no such file; name an archive that engine.pack has written")
        file = gfile.open_binary(archive)
        size_bytes = gfile.size_and_mtime(archive)[0]
    with file:
        with reraise_read_errors(what):
            packed, members = _examine(file, size_bytes, what)
        remedy = "make room there, or choose another --output"
        with (
            reraise_write_errors(f"--output={target}", remedy=remedy),
            gfile.new_dir(os.path.dirname(target)),
            _temporary_directory(target, packed.total_bytes) as directory,
        ):
            for member in members:
                _extract(file, member, packed, directory, what)
            for path, entry in packed.files.items():
                if entry.same_as is not None:
                    os.makedirs(os.path.dirname(os.path.join(directory, path)), exist_ok=True)
                    link_or_copy(os.path.join(directory, entry.same_as), os.path.join(directory, path))
    return packed


def _check_is_free(target: str) -> None:
    with reraise_read_errors(f"--output={target}"):
        if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
            raise ConfigurationError(
                f"--output={target}: exists and is not empty; choose a new directory, or remove it"
            )


def _examine(file: IO[bytes], size_bytes: int, what: str) -> tuple[Manifest, list[_Member]]:
    """Reads all headers and the manifest, and checks that they agree, before anything is written."""
    members = _members(file, size_bytes, what)
    first = next(members, None)
    if first is None or first.name != manifest.NAME:
        raise _refused(what, f"does not begin with {manifest.NAME}")
    if first.bytes > manifest.LARGEST_BYTES:
        raise _refused(what, f"has a manifest of {first.bytes} bytes, more than {manifest.LARGEST_BYTES}")
    file.seek(first.offset)
    try:
        packed = manifest.parse(file.read(first.bytes))
    except ManifestError as error:
        raise _refused(what, f"its manifest {error}") from error
    listed, found = packed.members, dict[str, _Member]()
    for member in members:
        entry = listed.get(member.name)
        if entry is None:
            raise _refused(what, f"{member.name[:100]!a} is not in its manifest")
        if member.name in found:
            raise _refused(what, f"{member.name[:100]!a} is there twice")
        if member.bytes != entry.bytes:
            raise _refused(
                what, f"{member.name[:100]!a} has {member.bytes} bytes, and {entry.bytes} by its manifest"
            )
        found[member.name] = member
    if missing := next((path for path in listed if path not in found), None):
        raise _refused(what, f"{missing[:100]!a} is missing")
    return packed, list(found.values())


def _members(file: IO[bytes], size_bytes: int, what: str) -> Iterator[_Member]:
    """The members of an archive in their order; raises ConfigurationError at the first that is refused."""
    position, long_name = 0, None
    while True:
        file.seek(position)
        block = file.read(_BLOCK_BYTES)
        position += _BLOCK_BYTES
        if len(block) < _BLOCK_BYTES:
            raise _refused(what, "is cut short" if position > _BLOCK_BYTES else _not_a_tar(block))
        if not any(block):
            _check_end(file, position, size_bytes, what)
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            reason = "has a damaged header" if position > _BLOCK_BYTES else _not_a_tar(block)
            raise _refused(what, reason) from error
        if header.size < 0 or position + header.size > size_bytes:
            raise _refused(what, f"is cut short in {(long_name or header.name)[:100]!a}")
        if header.type == tarfile.GNUTYPE_LONGNAME and header.size <= _LONGEST_NAME_BYTES and not long_name:
            long_name = file.read(header.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
        else:
            header.name, long_name = long_name or header.name, None
            _check_header(header, what)
            yield _Member(name=header.name, offset=position, bytes=header.size)
        position += header.size
        padding_bytes = -header.size % _BLOCK_BYTES
        file.seek(position)
        if any(file.read(padding_bytes)):
            raise _refused(what, f"has something hidden after {header.name[:100]!a}")
        position += padding_bytes


def _check_header(header: tarfile.TarInfo, what: str) -> None:
    """Raises ConfigurationError unless a header is that of a regular file with a plain path."""
    shown = f"{header.name[:100]!a}"
    if header.type != tarfile.REGTYPE:
        raise _refused(what, f"{shown} is {_KINDS.get(header.type, 'of an unknown type')}")
    if header.name != manifest.NAME and (fault := manifest.path_fault(header.name)):
        raise _refused(what, f"{shown} {fault}")
    try:
        tarfile.data_filter(header, os.curdir)
    except tarfile.FilterError as error:
        raise _refused(what, f"{shown} is refused by Python's tarfile ({type(error).__name__})") from error


def _check_end(file: IO[bytes], position: int, size_bytes: int, what: str) -> None:
    """Checks that only zeros follow the first of the two blocks of zeros that end an archive."""
    rest_bytes = size_bytes - position
    if rest_bytes < _BLOCK_BYTES:
        raise _refused(what, "is cut short")
    if rest_bytes > tarfile.RECORDSIZE or any(file.read(rest_bytes)):
        raise _refused(what, "goes on after its end")


def _extract(file: IO[bytes], member: _Member, packed: Manifest, directory: str, what: str) -> None:
    """Writes a member into the directory, and checks its digest."""
    path = os.path.join(directory, *member.name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest, rest_bytes = hashlib.sha256(), member.bytes
    with open(path, "xb") as copy:
        file.seek(member.offset)
        while rest_bytes:
            with reraise_read_errors(what):
                chunk = file.read(min(rest_bytes, _CHUNK_BYTES))
            if not chunk:
                raise _refused(what, f"is cut short in {member.name!a}")
            digest.update(chunk)
            copy.write(chunk)
            rest_bytes -= len(chunk)
    if digest.hexdigest() != packed.files[member.name].sha256:
        raise _refused(what, f"{member.name!a} is damaged")


@contextlib.contextmanager
def _temporary_directory(target: str, needed_bytes: int) -> Iterator[str]:
    """A directory beside the target, which becomes the target if the block ends without an error."""
    free_bytes = shutil.disk_usage(os.path.dirname(target)).free
    if needed_bytes > free_bytes:
        raise OSError(f"it takes {needed_bytes} bytes, and {free_bytes} are free")
    directory = f"{target}.{uuid.uuid4().hex}.tmp"
    os.mkdir(directory)
    try:
        yield directory
        fsync(directory)
        if os.path.isdir(target):
            os.rmdir(target)  # it is empty; Windows renames to no existing directory
        os.rename(directory, target)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _not_a_tar(start: bytes) -> str:
    kind = next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)
    return f"is compressed with {kind}; packed runs are plain .tar files" if kind else "is no .tar file"


def _refused(what: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{what}: {reason}; nothing was unpacked, so get an intact copy of the archive")
