"""Side information of examples: numbers or a class of each from a CSV file, a map from a folder of images."""

import csv
import dataclasses
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.formats.image_info import ImageRef
from data.formats.image_reader import is_image_name
from data.formats.raw_video import VideoFormat
from data.preparation.layouts import LAYOUTS, Example, FolderReader, SkippedExample
from data.preparation.splits import SPLITS, Source
from data.roles import SIDE_VECTOR

_MOST_NAMED = 10
_HEADER = "name"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attached:
    """Examples with their side information.

    Attributes:
      splits: split -> examples.
      vector_size: numbers of each example's vector; 0 if there are none.
      class_names: what each of them stands for, if it is a class.
      refused: examples left out for want of a map, and maps of no example.
    """

    splits: Mapping[str, list[Example]]
    vector_size: int = 0
    class_names: tuple[str, ...] = ()
    refused: tuple[SkippedExample, ...] = ()

    @property
    def features(self):
        """The `tfds` feature of the vector, by name; empty if there is none. Maps are images."""
        if not self.vector_size:
            return {}
        return {SIDE_VECTOR: tfds.features.Tensor(shape=(self.vector_size,), dtype=np.float32)}

    @property
    def metadata(self):
        """What is kept with the data set."""
        return {"side_classes": list(self.class_names)} if self.class_names else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideFiles:
    """Where side information lies; there is none by default.

    Whatever has a name is found by that of its example, or by "SPLIT/NAME" where the folders train, val
    and test of a source have the same names. A CSV file belongs to the data set as a whole: it is an error
    if it does not fit. A map belongs to its example, which is left out without it.

    Attributes:
      vector: CSV file, a row an example: name,number,number,... of equally many finite numbers.
      classes: CSV file, a row an example: name,class; stored one-hot, in the order of the classes' names.
      maps: folder of images of the size of their example's, or of folders train, val, test of them.

    Raises:
      DataError: numbers and classes are given at once.
    """

    vector: str | None = None
    classes: str | None = None
    maps: str | None = None

    def __post_init__(self):
        if self.vector is not None and self.classes is not None:
            raise DataError(
                "side_vector, side_classes: give one of them; write the classes as columns of 0 and 1 beside "
                "the numbers to have both"
            )

    def attach(self, found: Source, *, layout: str, video: VideoFormat) -> Attached:
        """Gives the examples that were found their side information.

        Raises:
          DataError: the layout takes none, a file cannot be read, or a row is missing, too many or wrong.
        """
        if self == SideFiles():
            return Attached(splits=found.splits)
        if len(LAYOUTS[layout].sides) > 1:
            raise DataError(
                f"side_vector, side_classes, side_map: layout {layout} takes none, as its images "
                "belong to no pair; leave them out"
            )
        attached = Attached(splits=found.splits)
        if path := self.vector or self.classes:
            rows, class_names = _vectors(path) if self.vector else _one_hot(path)
            attached = _with_vectors(found, rows, class_names, path)
        return _with_maps(found, attached, self.maps, video) if self.maps else attached


def _with_vectors(found, rows, class_names, path):
    places = _Places(found, rows, where=path)
    if places.missing:
        missing = [name for _, name in places.missing]
        raise DataError(f"{path}: has no row for {_listed(missing, 'example')}; add what is missing")
    if places.surplus:
        raise DataError(
            f"{path}: has rows for {_listed(places.surplus, 'name')} that no example has; remove them (a "
            f"header begins with {_HEADER!r})"
        )
    splits = {
        split: [
            example._replace(side_vector=rows[places.key_of[split, example.name]]) for example in examples
        ]
        for split, examples in found.splits.items()
    }
    size = len(next(iter(rows.values())))
    return Attached(splits=splits, vector_size=size, class_names=class_names)


def _with_maps(found, attached, folder, video):
    reader = FolderReader(video=video)
    if not gfile.is_dir(folder):
        raise DataError(f"{folder}: no such folder; give the folder of the maps")
    of_splits = [name for name in reader.contents(folder)[0] if name in SPLITS]
    maps: dict[str, ImageRef] = {}
    for split in of_splits or [""]:
        prefix = f"{split}/" if split else ""
        read = reader.examples(os.path.join(folder, split))
        maps |= {prefix + example.name: example.images[0] for example in read}
    places = _Places(found, maps, where=folder)
    refused = [*reader.refused]
    for key in places.surplus:
        refused.append(
            SkippedExample(key, f"{maps[key].path}: is the map of no example; rename or remove it")
        )
    splits = {}
    for split, examples in attached.splits.items():
        splits[split] = []
        for example in examples:
            key = places.key_of.get((split, example.name))
            if key is not None:
                splits[split].append(example._replace(images=(*example.images, maps[key])))
            else:
                lacks = f"{example.images[0].path}: has no map named {example.name!r} in {folder}; add it"
                refused.append(SkippedExample(example.name, lacks))
    return dataclasses.replace(attached, splits=splits, refused=tuple(refused))


class _Places:
    """Which of some names stand for which examples.

    Attributes:
      key_of: (split, name of an example) -> the key of what belongs to it.
      missing: (split, name) of the examples to which nothing belongs.
      surplus: keys that belong to nothing, not even to an example that was left out before.
    """

    def __init__(self, found: Source, keys: Iterable[str], *, where: str):
        splits_of: dict[str, list[str]] = {}
        for split, examples in found.splits.items():
            for example in examples:
                splits_of.setdefault(example.name, []).append(split)
        left_out = {refusal.name for refusal in found.refused} | set(found.unlisted)
        known = splits_of.keys() | left_out
        spelled = {self._spelled(key, known): key for key in keys}
        self.key_of, self.missing = {}, []
        for name, splits in splits_of.items():
            for split in splits:
                key = spelled.get(f"{split}/{name}")
                if key is None and name in spelled:
                    if len(splits) > 1:
                        raise DataError(
                            f"{where}: {name!r} is the name of examples in {' and '.join(splits)}; name them "
                            f"{split}/{name} and so on"
                        )
                    key = spelled[name]
                if key is None:
                    self.missing.append((split, name))
                else:
                    self.key_of[split, name] = key
        taken = set(self.key_of.values())
        self.surplus = [
            key
            for name, key in spelled.items()
            if key not in taken and name.rpartition("/")[2] not in left_out
        ]

    @staticmethod
    def _spelled(key, known):
        """The key as an example's name: a file's name without its ending."""
        folder, slash, name = key.rpartition("/")
        if name not in known and is_image_name(name):
            name = os.path.splitext(name)[0]
        return folder + slash + name


def _vectors(path):
    """({name: float32 [K]}, no names of classes) of a CSV file of numbers."""
    cells, wrong = _rows(path), []
    size = len(next(iter(cells.values())))
    if not size:
        raise DataError(f"{path}: holds names only; a row is name,number,number,...")
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
        raise DataError(f"{path}: no row of finite float32 numbers for {_listed(wrong, 'name')}; mend them")
    return rows, ()


def _one_hot(path):
    """({name: float32 [classes]}, names of the classes) of a CSV file of classes."""
    cells = _rows(path)
    wrong = [name for name, texts in cells.items() if len(texts) != 1 or not texts[0]]
    if wrong:
        raise DataError(f"{path}: no row name,class for {_listed(wrong, 'name')}; mend them")
    class_names = tuple(sorted({texts[0] for texts in cells.values()}))
    one_hot = dict(zip(class_names, np.eye(len(class_names), dtype=np.float32), strict=True))
    return {name: one_hot[texts[0]] for name, texts in cells.items()}, class_names


def _rows(path):
    """{name: the other cells} of a CSV file, one or more."""
    try:
        with gfile.open_text(path, newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or ("not UTF-8" if isinstance(error, ValueError) else error)
        raise DataError(f"{path}: cannot be read ({reason}); it has a row for each example") from error
    rows = [row for row in rows if any(row)]
    if rows and rows[0][0].lower() == _HEADER:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: holds no rows; it has one for each example")
    found, doubled = {}, []
    for name, *cells in rows:
        name = unicodedata.normalize("NFC", name)
        if name in found:
            doubled.append(name)
        found[name] = cells
    if doubled:
        raise DataError(f"{path}: has several rows for {_listed(doubled, 'name')}; keep one of each")
    return found


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def _listed(names, noun):
    """ "3 examples (a, b, c)" """
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    count = f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
    return f"{count} ({', '.join(names[:_MOST_NAMED])}{more})"
