"""Folder layouts: how a folder holds examples.

A layout reads one folder; `LAYOUTS` names the layouts. An image that cannot be used is skipped; only a folder
that does not have the layout at all is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data.preparation.examples import Example
from data.preparation.folder_reader import FolderReader, domain_paths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a folder holds examples.

    Attributes:
      features: of an example, in the order of its images.
      domains: suffixes of the names of splits: domains A and B of unpaired images are separate splits.
      read: function of (`FolderReader`, folder) -> {domain: examples, sorted by name}.
      read_domains: the same of (`FolderReader`, folder of A, folder of B); None if the images of A and B are
        not in folders of their own.
      nested: whether images may be in folders of folders, whose names are then part of their own.
    """

    features: tuple[str, ...]
    domains: tuple[str, ...] = ("",)
    read: Callable[[FolderReader, str], dict[str, list[Example]]]
    read_domains: Callable[[FolderReader, str, str], dict[str, list[Example]]] | None = None
    nested: bool = False


def _unpaired(reader: FolderReader, folder_a: str, folder_b: str) -> dict[str, list[Example]]:
    return {"A": reader.examples(folder_a), "B": reader.examples(folder_b)}


LAYOUTS = {
    "side_by_side": Layout(features=("pair",), read=lambda reader, folder: {"": reader.examples(folder)}),
    "paired": Layout(
        features=("A", "B"),
        read=lambda reader, folder: {"": reader.pairs(folder)},
        read_domains=lambda reader, a, b: {"": reader.pairs_of(a, b)},
    ),
    "unpaired": Layout(
        features=("image",),
        domains=("A", "B"),
        read=lambda reader, folder: _unpaired(reader, *domain_paths(reader, folder, layout="unpaired")),
        read_domains=_unpaired,
    ),
    "single": Layout(features=("image",), read=lambda reader, folder: {"": reader.examples(folder)}),
    "labelled": Layout(
        features=("image",), read=lambda reader, folder: {"": reader.tree(folder)}, nested=True
    ),
}
"""side_by_side: each file is a pair, A its left half and B its right half. paired: files of the same name in
two sub-folders, A and B in alphabetical order, or files of two patterns in one folder. unpaired: two
sub-folders of images that do not correspond. single: images on their own. labelled: images with a class or
numbers each, in a folder for each class or beside a CSV file (`data.preparation.targets`)."""
