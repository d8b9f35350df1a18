"""Which pictures are translated, and under which relative names."""

from __future__ import annotations

import dataclasses
import glob as python_glob
import os
from collections.abc import Iterable

from data import gfile
from data.formats import image_reader
from engine.errors import ConfigurationError
from engine.pictures.picture_input import Picture
from engine.pictures.role_format import RoleFormat
from engine.storage.file_errors import reraise_read_errors

_LIST = ".txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePicture:
    """A picture to translate.

    Attributes:
      path: of its file, for messages too.
      name: path of its outputs without extension, relative to the folder of outputs: "holiday/beach".
    """

    path: str
    name: str

    def read(self, role: RoleFormat) -> Picture:
        """Reads it for a network; transparency that the network does not take is kept apart.

        Raises:
          data.errors.DataError: it cannot be read, or the network cannot take it.
        """
        return role.read(self.path, keeps_alpha=True)


def find_pictures(pattern: str, *, flag: str = "input", leave_out: str | None = None) -> list[SourcePicture]:
    """Finds the pictures that a flag names.

    Args:
      pattern: a picture; a folder, with the folders in it; a glob pattern; or a list, which is a .txt file
        with the path of a picture in each line, relative to its own folder.
      flag: its name, for messages.
      leave_out: a folder below `pattern` whose pictures do not count: that of the outputs.

    Returns:
      The pictures, sorted by path; those of a list in its order, each once.

    Raises:
      ConfigurationError: there are none, or the list cannot be read.
    """
    pattern = os.path.expanduser(pattern)
    with reraise_read_errors(f"--{flag}={pattern}"):
        if gfile.is_file(pattern):  # even if its name contains characters of a pattern
            if pattern.lower().endswith(_LIST):
                return _listed(pattern, flag=flag)
            return _pictures([pattern], os.path.dirname(pattern))
        if gfile.is_dir(pattern):
            base, remedy = pattern, "give a folder that holds some"
            paths = gfile.glob(os.path.join(python_glob.escape(pattern), "**"))
        else:
            base, remedy = _folder_before_magic(pattern), "correct the path or the pattern"
            # A folder such as "photos [2024]" may be part of a pattern.
            paths = gfile.glob(pattern) or gfile.glob(pattern.replace("[", "[[]"))
        found = [path for path in paths if image_reader.is_image_name(path) and gfile.is_file(path)]
    if leave_out is not None and not _is_same_folder(base, leave_out):
        found = [path for path in found if not _is_below(path, leave_out)]
    if not found:
        raise ConfigurationError(f"--{flag}={pattern}: no picture there; {remedy}")
    return _pictures(found, base)


def _pictures(paths: Iterable[str], folder: str) -> list[SourcePicture]:
    """Pictures with names relative to a folder; of what is not in it, the file name alone."""
    return [SourcePicture(path=path, name=_relative_stem(path, folder)) for path in paths]


def _relative_stem(path: str, folder: str) -> str:
    if gfile.is_url(path):
        inside = path.removeprefix(f"{folder.rstrip('/')}/")
        relative = inside if inside != path else os.path.basename(path)
    else:
        relative = os.path.relpath(path, folder or os.curdir)
    if relative.split(os.sep)[0] == os.pardir:
        relative = os.path.basename(path)
    return os.path.splitext(relative)[0]


def _listed(path: str, *, flag: str) -> list[SourcePicture]:
    """The pictures of a list file."""
    folder = os.path.dirname(path)
    try:
        with gfile.open_text(path) as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"--{flag}={path}: is not a text in UTF-8; give a .txt file with a path in each line"
        ) from error
    paths = dict.fromkeys(os.path.join(folder, os.path.expanduser(line)) for line in lines if line)
    if not paths:
        raise ConfigurationError(f"--{flag}={path}: lists no picture; write a path into each line")
    return _pictures(paths, folder)


def _folder_before_magic(pattern: str) -> str:
    """The part of a pattern before the first component with `*`, `?` or `[`, which outputs do not repeat."""
    kept: list[str] = []
    for part in pattern.split("/")[:-1]:
        if python_glob.has_magic(part) and not gfile.is_dir("/".join([*kept, part])):
            break
        kept.append(part)
    return "/".join(kept) or ("/" if pattern.startswith("/") else "")


def _is_same_folder(first: str, second: str) -> bool:
    return _absolute(first or os.curdir) == _absolute(second)


def _is_below(path: str, folder: str) -> bool:
    return _absolute(path).startswith(_absolute(folder).rstrip("/") + "/")


def _absolute(path: str) -> str:
    return path if gfile.is_url(path) else os.path.realpath(path)
