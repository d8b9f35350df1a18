"""Splits: which examples of a source are for training, validation and test.

A source has folders of splits (`data.preparation.split_folders`), or is divided by lists of names, by groups
or by fractions. Only names decide, so the same names always give the same splits in the same order.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from data import gfile
from data.errors import DataError
from data.formats.image_reader import is_image_name
from data.preparation.examples import Example, SkippedExample
from data.preparation.folder_reader import FolderReader, compile_pattern
from data.preparation.layouts import LAYOUTS
from data.preparation.split_folders import SPLITS, read_split_folders

_ByDomain = Mapping[str, list[Example]]
"""Domain ("" unless the layout has several) -> examples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """How a source without folders train, val, test is divided.

    Attributes:
      val_fraction: of the examples for "val", in [0, 1). 0 holds out nothing of any source: if there is no
        "val", training evaluates the training examples.
      test_fraction: of the examples for "test", in [0, 1).
      group: regular expression that is searched for in the names of examples. All examples with the same
        group 1 are in one split. The fractions are then met as closely as adding whole groups allows.
      split_lists: folder of the files train.txt, val.txt and test.txt (the last two may be missing), with
        the name of an example per line. They replace the fractions.

    Raises:
      DataError: a value is out of range, or both `group` and `split_lists` are given.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    group: str | None = None
    split_lists: str | None = None

    def __post_init__(self) -> None:
        val, test = self.val_fraction, self.test_fraction
        if not (0 <= val and 0 <= test and val + test < 1):
            raise DataError(
                f"val_fraction = {val}, test_fraction = {test}: must be at least 0, and less than 1 together "
                "so that training examples remain; change them"
            )
        if self.group is not None:
            compile_pattern("group", self.group)
            if self.split_lists is not None:
                raise DataError("group, split_lists: two ways of dividing a source; give one of them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The examples of a source.

    Attributes:
      splits: split -> examples; "trainA" and "trainB" in place of "train" where the layout has two domains.
        Training examples are shuffled by their names, so that any run of consecutive ones is a random
        sample; the others are sorted by name.
      ignored: paths of files that are not images.
      skipped: examples that cannot be used.
      unlisted: names of the examples that are in no list of `Division.split_lists`.
      groups: number of groups of `Division.group`; 0 if it is not given.
    """

    splits: Mapping[str, list[Example]]
    ignored: list[str]
    skipped: list[SkippedExample]
    unlisted: tuple[str, ...] = ()
    groups: int = 0


def find_examples(
    *,
    layout: str,
    source: str,
    division: Division,
    reader: FolderReader,
    classes: Callable[[Sequence[Example]], Mapping[str, str]] | None = None,
) -> Source:
    """Finds the examples of a source folder.

    Args:
      layout: a key of `LAYOUTS`.
      source: the folder.
      division: for a source without folders of splits.
      reader: a new `FolderReader`.
      classes: function of examples without domains that returns name -> class, or {} if they have none. The
        fractions are then taken of each class.

    Returns:
      A `Source`.

    Raises:
      DataError: the folder does not have the layout, or no training example remains.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: not known; choose one of {', '.join(LAYOUTS)}, tfds")
    if reader.match_a is not None and layout != "paired":
        raise DataError(f"match_a, match_b: are for layout paired; leave them out with layout {layout}")
    unlisted: tuple[str, ...] = ()
    groups = 0
    found = read_split_folders(layout, source, reader)  # {split: {domain: examples}}
    if found is None:
        examples = LAYOUTS[layout].read(reader, source)
        if division.split_lists is not None:
            found, unlisted = _by_lists(examples, division.split_lists, source, reader)
        elif division.group is not None:
            found, groups = _by_group(examples, division, division.group)
        elif classes is not None and (class_of := classes(examples[""])):
            found = _by_class(examples[""], division, class_of)
        else:
            found = _by_fractions(examples, division)
    elif division.group is not None or division.split_lists is not None:
        raise DataError(
            f"{source}: is already divided by its folders {', '.join(found)}; leave out group and "
            "split_lists, or move the images out of these folders"
        )
    found["train"] = {domain: _shuffled(examples) for domain, examples in found["train"].items()}
    splits = {
        split + domain: examples
        for split, by_domain in found.items()
        for domain, examples in by_domain.items()
        if examples
    }
    check_trainable(splits, layout=layout, source=source, skipped=reader.skipped)
    return Source(
        splits=splits, ignored=reader.ignored, skipped=reader.skipped, unlisted=unlisted, groups=groups
    )


def check_trainable(
    splits: Mapping[str, Sequence], *, layout: str, source: str, skipped: Sequence[SkippedExample]
) -> None:
    """Checks that there are training examples.

    Args:
      splits: split -> examples, or anything of their number.
      layout: a key of `LAYOUTS`.
      source: the folder, named in errors.
      skipped: the examples skipped so far; the error gives the first as its reason.

    Raises:
      DataError: a training split is empty.
    """
    for domain in LAYOUTS[layout].domains:
        if splits.get("train" + domain):
            continue
        what = f"no training examples in {'train' + domain!r}" if domain else "no training examples"
        if skipped:
            more = f"; {len(skipped)} examples were skipped" if len(skipped) > 1 else ""
            raise DataError(f"{skipped[0].reason} (without it, {source} leaves {what}{more})")
        raise DataError(f"{source}: leaves {what}; lower the fractions or add images")


def _by_fractions(examples: _ByDomain, division: Division) -> dict[str, dict[str, list[Example]]]:
    """Divides each domain at random, by name only; "train" gets what the fractions leave."""
    found: dict[str, dict[str, list[Example]]] = {split: {} for split in SPLITS}
    for domain, of_domain in examples.items():
        shuffled = _shuffled(of_domain)
        tests = round(division.test_fraction * len(shuffled))
        vals = round(division.val_fraction * len(shuffled))
        found["train"][domain] = sorted(shuffled[tests + vals :])
        found["val"][domain] = sorted(shuffled[tests : tests + vals])
        found["test"][domain] = sorted(shuffled[:tests])
    return found


def _by_class(
    examples: Sequence[Example], division: Division, class_of: Mapping[str, str]
) -> dict[str, dict[str, list[Example]]]:
    """Divides each class at random, by name only.

    A class misses its fraction by less than one example, and so does their sum: small classes take turns.
    "train" gets at least one example of each.
    """
    by_class: dict[str, list[Example]] = {}
    for example in examples:
        by_class.setdefault(class_of[example.name], []).append(example)
    found: dict[str, dict[str, list[Example]]] = {split: {"": []} for split in SPLITS}
    before = 0
    for _, of_class in sorted(by_class.items()):
        shuffled, size = _shuffled(of_class), len(of_class)
        tests, vals = (
            math.floor(fraction * (before + size) + 0.5) - math.floor(fraction * before + 0.5)
            for fraction in (division.test_fraction, division.val_fraction)
        )
        tests = min(tests, size - 1)
        vals = min(vals, size - 1 - tests)
        found["train"][""] += shuffled[tests + vals :]
        found["val"][""] += shuffled[tests : tests + vals]
        found["test"][""] += shuffled[:tests]
        before += size
    return {split: {"": sorted(of_split[""])} for split, of_split in found.items()}


def _by_group(
    examples: _ByDomain, division: Division, group: str
) -> tuple[dict[str, dict[str, list[Example]]], int]:
    """Divides whole groups, all domains together; returns the splits and the number of groups.

    Groups are shuffled by their names. A group goes into a split if that brings the split closer to its
    fraction of the examples, so a split misses it by at most half of the smallest group left over.
    """
    names = [example.name for of_domain in examples.values() for example in of_domain]
    groups = {name: _group_of(name, group) for name in names}
    sizes = collections.Counter(groups[name] for name in names)
    split_of = dict.fromkeys(sizes, "train")
    for split, fraction in (("test", division.test_fraction), ("val", division.val_fraction)):
        missing = fraction * len(names)
        for key in sorted(sizes, key=_shuffle_key):
            if split_of[key] == "train" and abs(missing - sizes[key]) < abs(missing):
                split_of[key] = split
                missing -= sizes[key]
    return _divided(examples, SPLITS, lambda name: split_of[groups[name]]), len(sizes)


def _group_of(name: str, group: str) -> str:
    match = compile_pattern("group", group).search(name)
    if match is None or match[1] is None:
        raise DataError(
            f"{name!r}: does not match group = {group!r}, so its split is not known; change the name, or the "
            "expression so that every name has group 1"
        )
    return match[1]


def _by_lists(
    examples: _ByDomain, folder: str, source: str, reader: FolderReader
) -> tuple[dict[str, dict[str, list[Example]]], tuple[str, ...]]:
    """Divides by lists of names; returns the splits and the names of the examples in no list."""
    split_of: dict[str, str] = {}
    lists = _read_lists(folder)
    names = [example.name for of_domain in examples.values() for example in of_domain]
    known = {*names, *(skipped.name for skipped in reader.skipped)}
    for split, listed in lists.items():
        path = os.path.join(folder, f"{split}.txt")
        for name in listed:
            if name not in known and is_image_name(name):
                name = os.path.splitext(name)[0]
            if name in split_of:
                raise DataError(
                    f"{path}: names {name!r}, which is already in {split_of[name]}.txt; keep it in one list"
                )
            split_of[name] = split
            if name not in known:
                reason = f"{path}: names {name!r}, which is not in {source}; add it or remove the line"
                reader.skipped.append(SkippedExample(name, reason))
    unlisted = tuple(name for name in names if name not in split_of)
    return _divided(examples, lists, split_of.get), unlisted


def _divided(
    examples: _ByDomain, splits: Sequence[str] | Mapping, split_of: Callable[[str], str | None]
) -> dict[str, dict[str, list[Example]]]:
    """{split: {domain: the examples whose names belong to the split}}."""
    return {
        split: {
            domain: [example for example in of_domain if split_of(example.name) == split]
            for domain, of_domain in examples.items()
        }
        for split in splits
    }


def _read_lists(folder: str) -> dict[str, list[str]]:
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
            raise DataError(
                f"{path}: cannot be read ({reason}); write the name of an example per line"
            ) from error
        lists[split] = [line for line in lines if line]
    return lists


def _shuffled(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: _shuffle_key(example.name))


def _shuffle_key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
