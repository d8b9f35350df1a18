"""Folders of splits in a source: train, val and test, and how their names say A and B."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

from data import gfile
from data.errors import DataError
from data.preparation.examples import Example
from data.preparation.folder_reader import FolderReader
from data.preparation.layouts import LAYOUTS

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Naming:
    """One way to name the folders of splits.

    Attributes:
      folders: split -> its folder; or its folders of A and B. Relative to the source.
      parents: folders between the source and these folders; "" is the source itself.
    """

    folders: Mapping[str, tuple[str, ...]]
    parents: tuple[str, ...] = ("",)


def read_split_folders(
    layout: str, source: str, reader: FolderReader
) -> dict[str, dict[str, list[Example]]] | None:
    """Reads the examples of a source that has folders of splits.

    These are train, val and test, each in the layout. If A and B have folders of their own, trainA and
    trainB, train_A and train_B, or A/train and B/train are read too.

    Args:
      layout: a key of `LAYOUTS`.
      source: the folder.
      reader: a new `FolderReader`.

    Returns:
      {split: {domain: examples}}; None if the source has no folders of splits.

    Raises:
      DataError: the source is empty, or a folder is missing, or something is beside the folders.
    """
    if not gfile.is_dir(source):
        raise DataError(f"{source}: no such folder; give the folder of the images as the source")
    folders, images = FolderReader().contents(source)
    if not folders and not images:
        raise DataError(f"{source}: holds no images; give the folder of the images as the source")
    read_domains = LAYOUTS[layout].read_domains if reader.match_a is None else None
    for naming in _namings(source, folders, images, has_domains=read_domains is not None):
        split_names = {path for paths in naming.folders.values() for path in paths}
        present = {
            os.path.join(parent, name)
            for parent in naming.parents
            for name in FolderReader().contents(os.path.join(source, parent))[0]
        }
        if not split_names & present:
            continue
        _check(source, naming, present, reader)
        found = {split: paths for split, paths in naming.folders.items() if set(paths) & present}
        examples = {}
        for split, paths in found.items():
            full = [os.path.join(source, path) for path in paths]
            if read_domains is not None and len(full) == 2:
                examples[split] = read_domains(reader, *full)
            else:
                examples[split] = LAYOUTS[layout].read(reader, full[0])
        return examples
    return None


def _namings(
    source: str, folders: Sequence[str], images: Sequence[str], *, has_domains: bool
) -> list[_Naming]:
    """The ways to name folders of splits that a source may use; the first that fits is taken."""
    namings = [_Naming(folders={split: (split,) for split in SPLITS})]
    if not has_domains:
        return namings
    namings += [
        _Naming(folders={split: (f"{split}{mark}A", f"{split}{mark}B") for split in SPLITS})
        for mark in ("", "_")
    ]
    if len(folders) == 2 and not images:
        a, b = folders
        namings.append(
            _Naming(
                folders={split: (os.path.join(a, split), os.path.join(b, split)) for split in SPLITS},
                parents=(a, b),
            )
        )
    return namings


def _check(source: str, naming: _Naming, present: set[str], reader: FolderReader) -> None:
    """Checks that a source with folders of splits has all it needs and nothing else."""
    allowed = list(itertools.chain.from_iterable(naming.folders.values()))
    beside = ", ".join(path for path in allowed if path in present)
    for parent in dict.fromkeys(("", *naming.parents)):
        folder = os.path.join(source, parent) if parent else source
        folders, images = reader.contents(folder)  # notes which files are ignored
        for name in images + folders if parent in naming.parents else ():
            if os.path.join(parent, name) not in allowed:
                raise DataError(
                    f"{os.path.join(folder, name)}: is beside the folders {beside}, where only "
                    f"{', '.join(allowed)} are read; rename, move or remove it"
                )
    for split, paths in naming.folders.items():
        if split != "train" and not set(paths) & present:
            continue
        for path in paths:
            if path not in present:
                raise DataError(f"{source}: has {beside} but no folder {path!r}; add one")
