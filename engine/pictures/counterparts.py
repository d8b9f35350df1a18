"""Pictures in another folder, found by the relative names of those that are translated."""

from __future__ import annotations

import collections
import os
import unicodedata

from data import gfile
from data.errors import DataError
from engine.pictures.picture_paths import find_pictures


class Counterparts:
    """Finds the file of the same relative name, whatever its extension, in a folder.

    A picture in a sub-folder finds its counterpart there, or by its file name alone if that is the only one
    of that name.

    Args:
      folder: of the files.
      flag: that names the folder.
      what: the files are, for messages: "map".

    Attributes:
      folder: as given, with the home directory for "~".
      paths: of all the files.

    Raises:
      data.errors.DataError: there is no such folder.
      engine.errors.ConfigurationError: it holds no images.
    """

    def __init__(self, folder: str, *, flag: str, what: str):
        self.folder, self._what = os.path.expanduser(folder), what
        if not gfile.is_dir(self.folder):
            raise DataError(f"--{flag}={folder}: no such folder; give the folder of the {what}s")
        found = find_pictures(self.folder, flag=flag)
        self.paths = [picture.path for picture in found]
        self._names: dict[str, list[str]] = collections.defaultdict(list)
        self._file_names: dict[str, list[str]] = collections.defaultdict(list)
        for picture in found:
            name = _normalised(picture.name)
            self._names[name].append(picture.path)
            self._file_names[os.path.basename(name)].append(picture.path)

    def find(self, path: str, name: str) -> str:
        """The path of the file for a picture.

        Args:
          path: of the picture, for messages.
          name: its relative name without extension.

        Raises:
          data.errors.DataError: there is no such file, or several.
        """
        name = _normalised(name)
        paths = self._names.get(name) or self._file_names.get(os.path.basename(name)) or []
        if len(paths) > 1:
            others = ", ".join(map(os.path.basename, paths[1:]))
            raise DataError(
                f"{paths[0]}: and {others} have the same name, and only one can be used; rename or remove one"
            )
        if paths:
            return paths[0]
        raise DataError(f"{path}: has no {self._what} named {name!r} in {self.folder}; add it")


def _normalised(name: str) -> str:
    # macOS decomposes the letters of file names.
    return unicodedata.normalize("NFC", name)
