"""Splits of a source: which examples are for training, which for validation and which for the test.

A source has folders of these names, or is divided: by lists of names, by groups, or by fractions. Division
looks at names alone, so the same names always give the same splits in the same order.
"""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Mapping

from data import gfile
from data.errors import DataError
from data.formats.image_reader import is_image_name
from data.preparation.layouts import LAYOUTS, Example, FolderReader, SkippedExample, compile_pattern

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """How a source without folders train, val, test is divided.

    Attributes:
      val_fraction, test_fraction: parts of the examples, in [0, 1), for "val" and "test".
      group: regular expression, searched for in an example's name; all examples of one group 1 come
        into one split. The fractions are then met as nearly as adding group after group allows.
      split_lists: folder of the files train.txt, val.txt and test.txt (the last two may be missing),
        with the name of an example in each line, in place of fractions. One folder with the names
        that split folders have needs one option where a file for each split would need three.

    Raises:
      DataError: a value is out of range, or two ways of dividing are asked for at once.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    group: str | None = None
    split_lists: str | None = None

    def __post_init__(self):
        val, test = self.val_fraction, self.test_fraction
        if not (0 <= val and 0 <= test and val + test < 1):
            raise DataError(
                f"val_fraction = {val}, test_fraction = {test}: neither may be negative, and together they "
                "must leave something to train on (be less than 1)"
            )
        if self.group is not None:
            compile_pattern("group", self.group)
            if self.split_lists is not None:
                raise DataError("group, split_lists: two ways of dividing a source; give one of them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What was found in a source.

    Attributes:
      splits: split -> examples; "train", or "trainA" and "trainB" where the sides of a layout are
        splits of their own. Training examples are in an order shuffled by name, so that any run of
        them is a fair sample, the others in the order of their names.
      ignored: paths of files that are no pictures.
      refused: examples left out.
      unlisted: names of the examples that no list of `Division.split_lists` names.
      groups: how many groups there are of `Division.group`; 0 if it is not given.
    """

    splits: Mapping[str, list[Example]]
    ignored: list[str]
    refused: list[SkippedExample]
    unlisted: tuple[str, ...] = ()
    groups: int = 0


def find_examples(*, layout, source, division, reader):
    """Finds the examples of a source folder.

    Args:
      layout: a key of `LAYOUTS`.
      source: the folder, as str.
      division: `Division`, for a source without folders of splits.
      reader: a fresh `FolderReader`.

    Returns:
      A `Source`.

    Raises:
      DataError: the folder is not as the layout wants it, or leaves nothing to train on.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: not known; choose one of {', '.join(LAYOUTS)}, tfds")
    if reader.match_a is not None and layout != "paired":
        raise DataError(f"match_a, match_b: are for layout paired; leave them out with layout {layout}")
    unlisted, groups = (), 0
    found = _read_split_folders(layout, source, reader)  # {split: {side: examples}}
    if found is None:
        sides = LAYOUTS[layout].read(reader, source)
        if division.split_lists is not None:
            found, unlisted = _by_lists(sides, division.split_lists, source, reader)
        elif division.group is not None:
            found, groups = _by_group(sides, division)
        else:
            found = _by_fractions(sides, division)
    elif division.group is not None or division.split_lists is not None:
        raise DataError(
            f"{source}: is divided by its folders {', '.join(found)} already; leave out group and "
            "split_lists, or move the images out of them"
        )
    for side, examples in found["train"].items():
        found["train"][side] = sorted(examples, key=lambda example: _shuffle_key(example.name))
    splits = {
        split + side: examples
        for split, sides in found.items()
        for side, examples in sides.items()
        if examples
    }
    check_trainable(splits, layout=layout, source=source, refused=reader.refused)
    return Source(
        splits=splits, ignored=reader.ignored, refused=reader.refused, unlisted=unlisted, groups=groups
    )


def check_trainable(splits, *, layout, source, refused):
    """Checks that there is something to train on.

    Args:
      splits: split -> anything that is true if the split has examples.
      layout, source: as of `find_examples`.
      refused: the `SkippedExample`s so far; the first is given as the reason.
    """
    for side in LAYOUTS[layout].sides:
        if splits.get("train" + side):
            continue
        what = f"nothing to train on in {'train' + side!r}" if side else "nothing to train on"
        if refused:
            more = f" ({len(refused)} examples were left out)" if len(refused) > 1 else ""
            raise DataError(f"{refused[0].reason} Without it {source} leaves {what}{more}")
        raise DataError(f"{source}: leaves {what}; lower the fractions or add images")


def _read_split_folders(layout, source, reader):
    """{split: {side: examples}} if the source is divided into such folders, else None."""
    if not gfile.is_dir(source):
        raise DataError(f"{source}: no such folder; give the folder of the images as the source")
    folders, images = FolderReader().contents(source)
    if not folders and not images:
        raise DataError(f"{source}: holds no images; give the folder of the images as the source")
    sides = LAYOUTS[layout].sides
    by_side = len(sides) > 1 and any(split + side in folders for split in SPLITS for side in sides)
    ends = sides if by_side else ("",)
    known = {split: [split + end for end in ends] for split in SPLITS}
    named = {split: names for split, names in known.items() if set(names) & set(folders)}
    if not named:
        return None
    allowed = [name for names in known.values() for name in names]
    stray = [name for name in images + folders if name not in allowed]
    if stray:
        there = ", ".join(sum(named.values(), []))
        raise DataError(
            f"{os.path.join(source, stray[0])}: stands beside the folders {there}; where "
            f"those exist, only {', '.join(allowed)} are read: rename, move or remove it"
        )
    for split in {"train": None} | named:
        for name in known[split]:
            if name not in folders:
                raise DataError(f"{source}: has {', '.join(folders)} but no folder {name!r}; add one")
    reader.contents(source)  # notes what is ignored
    if by_side:
        return {
            split: {
                side: reader.examples(os.path.join(source, name))
                for side, name in zip(sides, names, strict=True)
            }
            for split, names in named.items()
        }
    return {split: LAYOUTS[layout].read(reader, os.path.join(source, split)) for split in named}


def _by_fractions(sides, division):
    """Divides each side at random but by name only; train takes what the fractions leave."""
    found = {split: {} for split in SPLITS}
    for side, examples in sides.items():
        shuffled = sorted(examples, key=lambda example: _shuffle_key(example.name))
        tests = round(division.test_fraction * len(shuffled))
        vals = round(division.val_fraction * len(shuffled))
        parts = {
            "train": shuffled[tests + vals :],
            "val": shuffled[tests : tests + vals],
            "test": shuffled[:tests],
        }
        for split, part in parts.items():
            found[split][side] = sorted(part)
    return found


def _by_group(sides, division):
    """Divides whole groups, of all sides together; gives the splits and the number of groups.

    Groups are taken in an order shuffled by name, and one goes into a split if that brings the split
    nearer to its share of the examples; so it ends within half of the smallest group left over.
    """
    pattern, sizes = compile_pattern("group", division.group), {}
    names = [example.name for examples in sides.values() for example in examples]
    groups = {}
    for name in names:
        match = pattern.search(name)
        if match is None or match[1] is None:
            raise DataError(
                f"{name!r}: does not fit group = {division.group!r}, so it is not known where it belongs; "
                "change the expression (its group 1 must be in every name) or the name"
            )
        groups[name] = match[1]
        sizes[match[1]] = sizes.get(match[1], 0) + 1
    split_of = dict.fromkeys(sizes, "train")
    for split, fraction in (("test", division.test_fraction), ("val", division.val_fraction)):
        missing = fraction * sum(sizes.values())
        for group in sorted(sizes, key=_shuffle_key):
            if split_of[group] == "train" and abs(missing - sizes[group]) < abs(missing):
                split_of[group] = split
                missing -= sizes[group]
    found = {
        split: {
            side: [example for example in examples if split_of[groups[example.name]] == split]
            for side, examples in sides.items()
        }
        for split in SPLITS
    }
    return found, len(sizes)


def _by_lists(sides, folder, source, reader):
    """Divides by lists of names; gives the splits and the names of the examples in no list."""
    split_of, lists = {}, _read_lists(folder)
    known = {example.name for examples in sides.values() for example in examples}
    known |= {refusal.name for refusal in reader.refused}
    for split, names in lists.items():
        path = os.path.join(folder, f"{split}.txt")
        for name in names:
            if name not in known and is_image_name(name):
                name = os.path.splitext(name)[0]
            if name in split_of:
                raise DataError(
                    f"{path}: names {name!r}, which is in {split_of[name]}.txt already; keep it in one"
                )
            split_of[name] = split
            if name not in known:
                reason = f"{path}: names {name!r}, which is not in {source}; add it or remove the line"
                reader.refused.append(SkippedExample(name, reason))
    found = {
        split: {
            side: [example for example in examples if split_of.get(example.name) == split]
            for side, examples in sides.items()
        }
        for split in lists
    }
    names = (example.name for examples in sides.values() for example in examples)
    return found, tuple(name for name in names if name not in split_of)


def _read_lists(folder):
    """{split: names} of the lists in a folder."""
    lists = {}
    for split in SPLITS:
        path = os.path.join(folder, f"{split}.txt")
        if split != "train" and not gfile.exists(path):
            continue
        try:
            with gfile.open_text(path) as file:
                lines = [unicodedata.normalize("NFC", line.strip()) for line in file]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise DataError(f"{path}: cannot be read ({reason}); it lists names, one a line") from error
        lists[split] = [line for line in lines if line]
    return lists


def _shuffle_key(name):
    return hashlib.sha256(name.encode()).digest()
