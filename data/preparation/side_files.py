"""Side information of examples: a vector or class from a CSV file, a map from a folder of images."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.formats.image_info import ImageRef
from data.formats.image_reader import is_image_name
from data.formats.raw_video import VideoFormat
from data.preparation.examples import Example, SkippedExample
from data.preparation.folder_reader import FolderReader
from data.preparation.layouts import LAYOUTS
from data.preparation.split_folders import SPLITS
from data.preparation.splits import Source
from data.roles import SIDE_VECTOR

_MOST_NAMED = 10
_HEADER = "name"

MAP_CLASSES, MAP_VALUES = MAP_KINDS = ("classes", "values")
"""What the values of a map are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attached:
    """Examples with their side information.

    Attributes:
      splits: split -> examples.
      vector_size: size of each example's vector; 0 without vectors.
      class_names: of the elements of the vector if it is a one-hot class.
      skipped: examples without a map, and maps without an example.
    """

    splits: Mapping[str, list[Example]]
    vector_size: int = 0
    class_names: tuple[str, ...] = ()
    skipped: tuple[SkippedExample, ...] = ()

    @property
    def features(self) -> dict[str, tfds.features.FeatureConnector]:
        """The `tfds` feature of the vector by its name; empty without vectors. Maps are images."""
        if not self.vector_size:
            return {}
        return {SIDE_VECTOR: tfds.features.Tensor(shape=(self.vector_size,), dtype=np.float32)}

    @property
    def metadata(self) -> dict[str, list[str]]:
        """The entries for the metadata of the data set."""
        return {"side_classes": list(self.class_names)} if self.class_names else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideFiles:
    """The files of side information; there are none by default.

    A row or map has the name of its example, or "SPLIT/NAME" where the folders train, val and test of a
    source hold the same names. A CSV file has to fit all examples, or it is an error. An example without a
    map is skipped.

    Attributes:
      vector: CSV file with a row per example: name,number,number,... of equally many finite numbers.
      classes: CSV file with a row per example: name,class; stored one-hot, classes sorted by name.
      maps: folder of images with the size of their example's, or of folders train, val, test of them.
      map_kind: "values", which may be interpolated; or "classes", whole numbers or colours that stand for
        classes, which networks get one-hot.

    Raises:
      DataError: both `vector` and `classes` are given, or the kind is unknown or without maps.
    """

    vector: str | None = None
    classes: str | None = None
    maps: str | None = None
    map_kind: str = MAP_VALUES

    def __post_init__(self) -> None:
        if self.map_kind not in MAP_KINDS:
            raise DataError(f"side_map_kind = {self.map_kind!r}: must be one of {', '.join(MAP_KINDS)}")
        if self.has_class_maps and self.maps is None:
            raise DataError("side_map_kind: is given without side_map; give the folder of the maps too")
        if self.vector is not None and self.classes is not None:
            raise DataError(
                "side_vector, side_classes: both are given; give one, or write the classes as columns of 0 "
                "and 1 beside the numbers"
            )

    @property
    def has_class_maps(self) -> bool:
        """Whether the values of maps are classes."""
        return self.map_kind == MAP_CLASSES

    def attach(self, found: Source, *, layout: str, video: VideoFormat) -> Attached:
        """Adds the side information to examples.

        Args:
          found: the examples.
          layout: a key of `LAYOUTS`.
          video: how raw video is read.

        Raises:
          DataError: the layout takes none, a file cannot be read, or a row is missing, superfluous or wrong.
        """
        if self == SideFiles():
            return Attached(splits=found.splits)
        if len(LAYOUTS[layout].domains) > 1:
            raise DataError(
                f"side_vector, side_classes, side_map: layout {layout} takes none, as its images are not in "
                "pairs; leave them out"
            )
        attached = Attached(splits=found.splits)
        if self.vector:
            attached = _with_vectors(found, _vectors(self.vector), (), self.vector)
        elif self.classes:
            rows, class_names = _one_hot(self.classes)
            attached = _with_vectors(found, rows, class_names, self.classes)
        return _with_maps(found, attached, self.maps, video) if self.maps else attached


def _with_vectors(
    found: Source, rows: Mapping[str, np.ndarray], class_names: tuple[str, ...], path: str
) -> Attached:
    keys = _Keys(found, rows, where=path)
    if keys.missing:
        missing = [name for _, name in keys.missing]
        raise DataError(f"{path}: has no row for {_listed(missing, 'example')}; add what is missing")
    if keys.superfluous:
        raise DataError(
            f"{path}: has rows for {_listed(keys.superfluous, 'name')} that no example has; remove them (a "
            f"header begins with {_HEADER!r})"
        )
    splits = {
        split: [example._replace(side_vector=rows[keys.key_of[split, example.name]]) for example in examples]
        for split, examples in found.splits.items()
    }
    size = len(next(iter(rows.values())))
    return Attached(splits=splits, vector_size=size, class_names=class_names)


def _with_maps(found: Source, attached: Attached, folder: str, video: VideoFormat) -> Attached:
    maps, unusable = _read_maps(folder, video)
    keys = _Keys(found, maps, where=folder)
    skipped = [
        *unusable,
        *(
            SkippedExample(key, f"{maps[key].path}: is the map of no example; rename or remove it")
            for key in keys.superfluous
        ),
    ]
    splits: dict[str, list[Example]] = {}
    for split, examples in attached.splits.items():
        splits[split] = []
        for example in examples:
            key = keys.key_of.get((split, example.name))
            if key is not None:
                splits[split].append(example._replace(images=(*example.images, maps[key])))
            else:
                reason = f"{example.images[0].path}: has no map named {example.name!r} in {folder}; add it"
                skipped.append(SkippedExample(example.name, reason))
    return dataclasses.replace(attached, splits=splits, skipped=tuple(skipped))


def _read_maps(folder: str, video: VideoFormat) -> tuple[dict[str, ImageRef], list[SkippedExample]]:
    """({"NAME", or "SPLIT/NAME" in folders of splits: map}, maps that cannot be used)."""
    reader = FolderReader(video=video)
    if not gfile.is_dir(folder):
        raise DataError(f"{folder}: no such folder; give the folder of the maps")
    splits = [name for name in reader.contents(folder)[0] if name in SPLITS]
    maps = {}
    for split in splits or [""]:
        prefix = f"{split}/" if split else ""
        for example in reader.examples(os.path.join(folder, split)):
            maps[prefix + example.name] = example.images[0]
    return maps, reader.skipped


class _Keys:
    """Finds the example of each row or map.

    A key is "NAME" or "SPLIT/NAME", where NAME is the name of an example or of its file.

    Args:
      found: the examples.
      keys: of the rows or maps.
      where: file or folder of the keys, named in errors.

    Attributes:
      key_of: (split, name of an example) -> its key.
      missing: (split, name) of the examples without a key.
      superfluous: keys without an example, skipped ones included.

    Raises:
      DataError: a key without a split is the name of examples in several splits.
    """

    def __init__(self, found: Source, keys: Iterable[str], *, where: str):
        splits_of: dict[str, list[str]] = {}
        for split, examples in found.splits.items():
            for example in examples:
                splits_of.setdefault(example.name, []).append(split)
        unused = {skipped.name for skipped in found.skipped} | set(found.unlisted)
        key_named = {_example_name(key, splits_of.keys() | unused): key for key in keys}
        self.key_of: dict[tuple[str, str], str] = {}
        self.missing: list[tuple[str, str]] = []
        for name, splits in splits_of.items():
            for split in splits:
                key = key_named.get(f"{split}/{name}")
                if key is None and name in key_named:
                    _check_unambiguous(name, splits, where)
                    key = key_named[name]
                if key is None:
                    self.missing.append((split, name))
                else:
                    self.key_of[split, name] = key
        used = set(self.key_of.values())
        self.superfluous = [
            key
            for name, key in key_named.items()
            if key not in used and name.rpartition("/")[2] not in unused
        ]


def _check_unambiguous(name: str, splits: Sequence[str], where: str) -> None:
    if len(splits) > 1:
        raise DataError(
            f"{where}: {name!r} is the name of examples in {' and '.join(splits)}; name them "
            f"{splits[0]}/{name} and so on"
        )


def _example_name(key: str, known: Collection[str]) -> str:
    """A key without the extension of an image file, unless an example has that name."""
    folder, slash, name = key.rpartition("/")
    if name not in known and is_image_name(name):
        name = os.path.splitext(name)[0]
    return folder + slash + name


def _vectors(path: str) -> dict[str, np.ndarray]:
    """{name: float32 [K]} of a CSV file of numbers."""
    cells, wrong = _rows(path), []
    size = len(next(iter(cells.values())))
    if not size:
        raise DataError(f"{path}: holds only names; write rows of name,number,number,...")
    rows = {}
    for name, texts in cells.items():
        numbers = [_number(text) for text in texts]
        with np.errstate(over="ignore"):
            rows[name] = np.array(numbers, np.float32)
        if len(numbers) != size:
            wrong.append(f"{name} ({len(numbers)} numbers, where the first row has {size})")
        elif not np.isfinite(rows[name]).all():
            wrong.append(f"{name} ({texts[int(np.argmin(np.isfinite(rows[name])))]!r})")
    if wrong:
        raise DataError(
            f"{path}: no row of finite float32 numbers for {_listed(wrong, 'name')}; correct them"
        )
    return rows


def _one_hot(path: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """({name: float32 [classes]}, names of the classes) of a CSV file of classes."""
    cells = _rows(path)
    wrong = [name for name, texts in cells.items() if len(texts) != 1 or not texts[0]]
    if wrong:
        raise DataError(f"{path}: no row name,class for {_listed(wrong, 'name')}; correct them")
    class_names = tuple(sorted({texts[0] for texts in cells.values()}))
    one_hot = dict(zip(class_names, np.eye(len(class_names), dtype=np.float32), strict=True))
    return {name: one_hot[texts[0]] for name, texts in cells.items()}, class_names


def _rows(path: str) -> dict[str, list[str]]:
    """{name: the other cells} of a CSV file with at least one row."""
    try:
        with gfile.open_text(path, newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, ValueError) else error)
        raise DataError(f"{path}: cannot be read ({reason}); write a row per example") from error
    rows = [row for row in rows if any(row)]
    if rows and rows[0][0].lower() == _HEADER:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: holds no rows; write one per example")
    found: dict[str, list[str]] = {}
    repeated = []
    for name, *cells in rows:
        name = unicodedata.normalize("NFC", name)
        if name in found:
            repeated.append(name)
        found[name] = cells
    if repeated:
        raise DataError(f"{path}: has several rows for {_listed(repeated, 'name')}; keep one of each")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _listed(names: Sequence[str], noun: str) -> str:
    """Counts and lists names, such as "3 examples (a, b, c)"."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    count = f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
    return f"{count} ({', '.join(names[:_MOST_NAMED])}{more})"
