"""Which pictures are translated, and what the files of their translations are called."""

from __future__ import annotations

import os
from collections.abc import Sequence

from data import gfile
from data.formats import image_reader
from engine.errors import ConfigurationError
from engine.storage.file_errors import reraise_read_errors

_WRITTEN = (".png", ".tif", ".npy")  # extensions of the files that a translation may have


def find_pictures(pattern: str) -> list[str]:
    """Finds the pictures that --input names.

    Args:
      pattern: a picture, a folder (without its subfolders) or a glob pattern.

    Returns:
      Their paths, sorted.

    Raises:
      ConfigurationError: there are none.
    """
    pattern = os.path.expanduser(pattern)
    folder = None
    with reraise_read_errors(f"--input={pattern}"):
        if gfile.is_file(pattern):  # even if its name contains characters of a pattern
            return [pattern]
        if gfile.is_dir(pattern):
            paths = [os.path.join(pattern, name) for name in gfile.list_dir(pattern)]
            others = [path for path in paths if not image_reader.is_image_name(path)]
            folder = next((path for path in others if _is_shown_folder(path)), None)
            remedy = "give the folder with the pictures, or a pattern such as 'FOLDER/**/*.png'"
        else:
            # A folder such as "photos [2024]" may be part of a pattern.
            paths = gfile.glob(pattern) or gfile.glob(pattern.replace("[", "[[]"))
            remedy = "correct the path or the pattern"
        found = [path for path in paths if image_reader.is_image_name(path) and gfile.is_file(path)]
    if not found:
        raise ConfigurationError(f"--input={pattern}: no picture there; {remedy}")
    if folder is not None:
        print(f"note: folders in {pattern} are not read, such as {folder}; {remedy}")
    return found


def output_stems(paths: Sequence[str], output: str, *, samples: int | None) -> dict[str, list[str]]:
    """Chooses the paths of the translations, without the extension.

    Args:
      paths: of the pictures.
      output: folder of the translations.
      samples: translations of each picture, which are numbered; None if there is one, with its name.

    Returns:
      Path of a picture -> paths of its translations; all differ.

    Raises:
      ConfigurationError: two would be the same, or one would overwrite a picture.
    """
    inputs = {_identity(path) for path in paths}
    sources: dict[str, str] = {}
    stems: dict[str, list[str]] = {}
    for path in paths:
        name = os.path.join(output, os.path.splitext(os.path.basename(path))[0])
        stems[path] = [name] if samples is None else [f"{name}_sample_{n}" for n in range(samples)]
        for stem in stems[path]:
            if stem in sources:
                raise ConfigurationError(
                    f"--input: {sources[stem]} and {path} would both become {stem}.png; translate them into "
                    "different folders"
                )
            sources[stem] = path
            if overwritten := [stem + end for end in _WRITTEN if _identity(stem + end) in inputs]:
                raise ConfigurationError(
                    f"--output={output}: would overwrite {overwritten[0]}; choose another folder"
                )
    return stems


def _is_shown_folder(path: str) -> bool:
    return not os.path.basename(path).startswith(".") and gfile.is_dir(path)


def _identity(path: str) -> object:
    """The same for two paths of one file; unique if there is no file."""
    if gfile.is_url(path):
        return path
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino
