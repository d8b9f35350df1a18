"""What the files of a translation are called, and which of them are there already."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from data import gfile
from engine.errors import ConfigurationError
from engine.pictures.picture_paths import SourcePicture


def output_stems(
    pictures: Sequence[SourcePicture],
    output: str,
    *,
    samples: int | None,
    endings: Sequence[str],
    others: Iterable[str] = (),
) -> dict[SourcePicture, list[str]]:
    """Chooses the paths of the translations, without the extension.

    Args:
      pictures: to translate.
      output: folder of the translations.
      samples: translations of each picture, which are numbered; None if there is one, with its name.
      endings: of the files of a translation, such as ".png" and "_compare.png".
      others: files that are read beside the pictures, such as targets.

    Returns:
      Picture -> paths of its translations; all differ.

    Raises:
      ConfigurationError: two would be the same, or one would overwrite a file that is read.
    """
    inputs = {_identity(path) for path in (*(picture.path for picture in pictures), *others)}
    writers: dict[str, SourcePicture] = {}
    stems: dict[SourcePicture, list[str]] = {}
    for picture in pictures:
        name = os.path.join(output, picture.name)
        stems[picture] = [name] if samples is None else [f"{name}_sample_{n}" for n in range(samples)]
        for path in (stem + end for stem in stems[picture] for end in endings):
            if path in writers:
                raise ConfigurationError(
                    f"--input: {writers[path].path} and {picture.path} would both become {path}; translate "
                    "them into different folders"
                )
            writers[path] = picture
            if _identity(path) in inputs:
                raise ConfigurationError(f"--output={output}: would overwrite {path}; choose another folder")
    return stems


def are_written(stems: Sequence[str], endings: Sequence[str]) -> bool:
    """Whether all files of a picture are there. Files are written atomically: these are whole."""
    return all(_is_written(stem + ending) for stem in stems for ending in endings)


def _is_written(path: str) -> bool:
    # A file that is renamed just before the power fails may be empty.
    return gfile.is_file(path) and gfile.size_and_mtime(path)[0] > 0


def _identity(path: str) -> object:
    """The same for two paths of one file; unique if there is no file."""
    if gfile.is_url(path):
        return path
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino
