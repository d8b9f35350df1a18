"""Folders of pictures as sources of a data set: which files make up which example of which split.

A layout is a function from one folder to its examples; `LAYOUTS` names them. A source holds either
one such folder for each of train, val and test, or is itself one and is divided by fractions.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

from PIL import Image

from data.errors import DataError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceExample:
    """An example's name, unique in its split, and the file of each image feature."""

    name: str
    files: Mapping[str, pathlib.Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The examples of each split, and the files that are no images and were passed over."""

    splits: Mapping[str, tuple[SourceExample, ...]]
    ignored: tuple[pathlib.Path, ...]


def find_examples(*, layout, source, val_fraction, test_fraction):
    """Finds the examples of a source folder.

    "train" comes in an order shuffled by name, so that any run of it is a fair sample; the other
    splits come in the order of their names. The same names always give the same splits and order.

    Args:
        layout: a key of `LAYOUTS`.
        source: the folder.
        val_fraction, test_fraction: parts of the examples, in [0, 1), that become "val" and "test"
            when the source has no folders of these names.

    Returns:
        A `Source`.

    Raises:
        DataError: anything about the folder is not as the layout wants it.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: not known; choose one of {', '.join(LAYOUTS)}.")
    if not (0 <= val_fraction and 0 <= test_fraction and val_fraction + test_fraction < 1):
        raise DataError(
            f"val_fraction = {val_fraction}, test_fraction = {test_fraction}: neither may be "
            "negative, and together they must leave something to train on (be less than 1)."
        )
    source, ignored = pathlib.Path(source), []
    split_folders = _split_folders(source, ignored)
    if split_folders is None:
        examples = LAYOUTS[layout](source, ignored)
        splits = _divided(examples, val_fraction=val_fraction, test_fraction=test_fraction)
    else:
        splits = {split: LAYOUTS[layout](path, ignored) for split, path in split_folders.items()}
    if not splits["train"]:
        raise DataError(f"{source}: leaves nothing to train on; lower the fractions or add images.")
    splits["train"] = sorted(splits["train"], key=_shuffle_key)
    return Source(
        splits={split: tuple(found) for split, found in splits.items() if found},
        ignored=tuple(ignored),
    )


def _side_by_side(folder, ignored):
    """One file an example: its left half is A, its right half B."""
    folders, images = _contents(folder, ignored)
    if folders:
        raise DataError(
            f"{folders[0]}: a folder among the images of {folder}; move its images up, or name the "
            f"folders {', '.join(SPLITS)}."
        )
    by_stem = _by_stem(folder, images)
    return [SourceExample(name=stem, files={"pair": path}) for stem, path in by_stem.items()]


def _paired(folder, ignored):
    """Two sub-folders, A and B in the order of their names; files of one stem are a pair."""
    folders, images = _contents(folder, ignored)
    if images or len(folders) != 2:
        found = ", ".join(path.name for path in folders) or "none"
        beside = f", and {images[0].name} beside them" if images else ""
        raise DataError(
            f"{folder}: layout paired needs exactly two sub-folders, such as A and B, with the "
            f"images; found {found}{beside}."
        )
    sides = []
    for side in folders:
        inner_folders, images = _contents(side, ignored)
        if inner_folders:
            raise DataError(f"{inner_folders[0]}: a folder among the images; move its images up.")
        sides.append(_by_stem(side, images))
    first, second = sides
    if unmatched := first.keys() ^ second.keys():
        stem = min(unmatched)
        path, other = (first[stem], folders[1]) if stem in first else (second[stem], folders[0])
        raise DataError(f"{path}: has no partner named {stem!r} in {other}; add or remove one.")
    return [SourceExample(name=stem, files={"A": first[stem], "B": second[stem]}) for stem in first]


LAYOUTS = {"side_by_side": _side_by_side, "paired": _paired}
"""Name of a layout -> function of (folder, list that takes ignored files) -> examples by name."""


def _split_folders(source, ignored):
    """{split: folder} if the source is divided into such folders, else None."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the folder of the images as the source.")
    folders, images = _contents(source, [])
    if not folders and not images:
        raise DataError(f"{source}: holds no images; give the folder of the images as the source.")
    named = {path.name: path for path in folders if path.name in SPLITS}
    if not named:
        return None
    stray = images + [path for path in folders if path.name not in SPLITS]
    if stray:
        raise DataError(
            f"{stray[0]}: stands beside the folders {', '.join(named)}; where those exist, only "
            f"{', '.join(SPLITS)} are read: rename, move or remove it."
        )
    if "train" not in named:
        raise DataError(f"{source}: has {', '.join(named)} but no folder 'train'; add one.")
    _contents(source, ignored)
    return {split: named[split] for split in SPLITS if split in named}


def _contents(folder, ignored):
    """Sub-folders and image files of a folder by name; adds files of other kinds to `ignored`."""
    Image.init()
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check it.") from error
    folders = [path for path in entries if path.is_dir()]
    files = [path for path in entries if not path.is_dir()]
    ignored.extend(path for path in files if not _is_image_name(path))
    return folders, [path for path in files if _is_image_name(path)]


def _is_image_name(path):
    """Whether the name is that of an image; of one that is not read, too, so that it is refused."""
    return path.suffix.lower() in Image.EXTENSION


def _by_stem(folder, images):
    """{stem: path}, ordered by stem."""
    if not images:
        raise DataError(f"{folder}: holds no images; add some or remove the folder.")
    by_stem = {}
    for path in images:
        try:
            path.stem.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{str(path)!r}: the name is not valid UTF-8; rename it.") from error
        if path.stem in by_stem:
            raise DataError(
                f"{path}: and {by_stem[path.stem].name} have one name, {path.stem!r}, so it is "
                "not clear which one is meant; rename or remove one."
            )
        by_stem[path.stem] = path
    return dict(sorted(by_stem.items()))


def _divided(examples, *, val_fraction, test_fraction):
    """Divides examples at random but by name only; train takes what the fractions leave."""
    shuffled = sorted(examples, key=_shuffle_key)
    tests = round(test_fraction * len(shuffled))
    vals = round(val_fraction * len(shuffled))
    chosen = {
        "train": shuffled[tests + vals :],
        "val": shuffled[tests : tests + vals],
        "test": shuffled[:tests],
    }
    return {split: sorted(found, key=lambda e: e.name) for split, found in chosen.items()}


def _shuffle_key(example):
    return hashlib.sha256(example.name.encode()).digest()
