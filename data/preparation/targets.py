"""Targets of labelled images: classes by their folders, or classes or numbers from a CSV file."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from data.errors import DataError
from data.formats.image_reader import is_image_name
from data.preparation.csv_rows import by_name, listed, number, read_rows
from data.preparation.examples import Example
from data.preparation.row_keys import RowKeys, example_name
from data.preparation.splits import Source
from data.roles import CLASSES, NUMBERS, TARGET_KINDS
from data.tfrecords.target_format import TargetFormat

_WHOLE = re.compile(r"[+-]?[0-9]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Where the targets of labelled images come from.

    Attributes:
      path: CSV file with a row for each image: its path in the source, then its class, or one or more
        numbers. None if each class has a folder of its own.
      kind: "classes" or "numbers" in that file. None tells by the cells: numbers are numbers, one column of
        text is classes. A single column of whole numbers may be either, so it needs the kind.

    Raises:
      DataError: the kind is unknown or without a file.
    """

    path: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in TARGET_KINDS:
            raise DataError(f"target_kind = {self.kind!r}: must be one of {', '.join(TARGET_KINDS)}")
        if self.kind is not None and self.path is None:
            raise DataError("target_kind: is given without targets; give the CSV file too, or leave it out")

    def classes(self, examples: Sequence[Example]) -> dict[str, str]:
        """Returns name -> class of examples that are not yet in splits; {} if they have numbers."""
        names = [example.name for example in examples]
        if self.path is None:
            return {name: _folder_of(name) for name in names}
        table = self._table(self.path, names)
        if table.kind == NUMBERS:
            return {}
        known = set(names)
        class_of = {example_name(key, known): cells[0] for key, cells in table.cells.items()}
        return {name: class_of.get(name, "") for name in names}

    def attach(self, found: Source, *, source: str, holds_out: bool) -> tuple[Source, TargetFormat]:
        """Adds its target to each example.

        Args:
          found: the examples.
          source: the folder, named in errors.
          holds_out: whether examples are held out for evaluation, so that a class needs two.

        Returns:
          The examples with a value of `TargetFormat.feature_name`: the index of a class, or float32 [K]; and
          that format.

        Raises:
          DataError: the file cannot be read, a row is missing, superfluous or wrong, an image has no class,
            or the classes cannot be used.
        """
        if self.path is None:
            _check_folders(found, source)
            classes = {
                (split, example.name): _folder_of(example.name)
                for split, examples in found.splits.items()
                for example in examples
            }
            return _with_classes(found, classes, source, holds_out=holds_out)
        known = {example.name for examples in found.splits.values() for example in examples}
        known |= {skipped.name for skipped in found.skipped} | set(found.unlisted)
        table = self._table(self.path, known)
        keys = RowKeys(found, table.cells, where=self.path)
        keys.check_rows(header="names no image and holds no numbers")
        if table.kind == CLASSES:
            classes = {place: table.cells[key][0] for place, key in keys.key_of.items()}
            return _with_classes(found, classes, self.path, holds_out=holds_out)
        target = TargetFormat(kind=NUMBERS, names=table.names)
        values = {place: np.array(table.numbers(key), np.float32) for place, key in keys.key_of.items()}
        return _with_values(found, target, values), target

    @functools.cached_property
    def _rows(self) -> list[list[str]]:
        return read_rows(self.path) if self.path is not None else []

    def _table(self, path: str, known: Collection[str]) -> _Table:
        rows = self._rows
        header: list[str] = []
        if rows and _is_header(rows[0], known):
            header, rows = rows[0][1:], rows[1:]
        cells = by_name(rows, path)
        columns = len(next(iter(cells.values())))
        if not columns:
            raise DataError(f"{path}: holds only names; write rows of name,class or name,number,number,...")
        wrong = [name for name, texts in cells.items() if len(texts) != columns or not all(texts)]
        if wrong or (header and len(header) != columns):
            where = listed(wrong, "name") if wrong else f"its header ({','.join(header)})"
            raise DataError(
                f"{path}: the first row has {columns + 1} cells, but there are more, fewer or empty ones in "
                f"{where}; correct them"
            )
        table = _Table(path=path, cells=cells, header=tuple(header), kind=self.kind or _kind(cells, path))
        table.check()
        return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table:
    """The rows of a CSV file.

    Attributes:
      path: the file.
      cells: name of an image, as it is written there -> the texts of its target, equally many in each row.
      header: names of the columns; empty without a header.
      kind: "classes" or "numbers".
    """

    path: str
    cells: Mapping[str, Sequence[str]]
    header: tuple[str, ...]
    kind: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns; "number_1", "number_2", ... without a header."""
        columns = len(next(iter(self.cells.values())))
        return self.header or tuple(f"number_{column + 1}" for column in range(columns))

    def numbers(self, key: str) -> list[float]:
        """The numbers of a row."""
        return [number(text) for text in self.cells[key]]

    def check(self) -> None:
        """Raises a `DataError` unless the cells are of the kind."""
        if self.kind == CLASSES:
            if len(self.names) != 1:
                raise DataError(
                    f"{self.path}: a class is one column, not {len(self.names)}; remove the others"
                )
            return
        if len(set(self.names)) != len(self.names) or not all(self.names):
            raise DataError(
                f"{self.path}: its header ({','.join(self.names)}) names two columns alike or one not at "
                "all; correct it"
            )
        with np.errstate(over="ignore"):
            wrong = {
                name: text
                for name, texts in self.cells.items()
                for text in texts
                if not np.isfinite(np.float32(number(text)))
            }
        if wrong:
            shown = [f"{name} ({text!r})" for name, text in wrong.items()]
            raise DataError(
                f"{self.path}: no row of finite float32 numbers for {listed(shown, 'name')}; correct them, "
                "or give --target_kind=classes if a text is a class"
            )


def _is_header(row: Sequence[str], known: Collection[str]) -> bool:
    """Whether the first row names the columns: it names no image, and no other cell is a number."""
    name = row[0]
    if is_image_name(name) or name in known or name.partition("/")[2] in known:
        return False
    return all(math.isnan(number(text)) for text in row[1:])


def _kind(cells: Mapping[str, Sequence[str]], path: str) -> str:
    """What the cells of a file are; text beside numbers in one column is a mistake in the numbers."""
    rows = cells.values()
    if len(next(iter(rows))) > 1:
        return NUMBERS
    if all(_WHOLE.fullmatch(text) for [text] in rows):
        raise DataError(
            f"{path}: its only column holds whole numbers, which may be classes or numbers; say which with "
            "--target_kind=classes or --target_kind=numbers"
        )
    return CLASSES if all(math.isnan(number(text)) for [text] in rows) else NUMBERS


def _folder_of(name: str) -> str:
    return name.partition("/")[0]


def _check_folders(found: Source, source: str) -> None:
    for examples in found.splits.values():
        for example in examples:
            if "/" not in example.name:
                raise DataError(
                    f"{example.images[0].path}: is in no folder of a class; move it into one, or give the "
                    f"targets of the images of {source} with --targets=FILE.csv"
                )


def _with_classes(
    found: Source, class_of: Mapping[tuple[str, str], str], where: str, *, holds_out: bool
) -> tuple[Source, TargetFormat]:
    """Adds classes, by (split, name), as indices into their sorted names."""
    names = _sorted(set(class_of.values()))
    _check_names(names, where)
    if holds_out:
        alone = [name for name, count in collections.Counter(class_of.values()).items() if count == 1]
        if alone:
            raise DataError(
                f"{where}: has one image only of {listed(alone, 'class', 'classes')}, and training and "
                "evaluation need one each; add images, or hold nothing out with --val_fraction=0"
            )
    check_trainable(names, (name for (split, _), name in class_of.items() if split == "train"), where=where)
    target = TargetFormat(kind=CLASSES, names=names)
    index = {name: number for number, name in enumerate(names)}
    return _with_values(found, target, {place: index[name] for place, name in class_of.items()}), target


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes in their order: that of the numbers if all are whole numbers."""
    names = sorted(names)
    if all(_WHOLE.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)


def _check_names(names: Sequence[str], where: str) -> None:
    if len(names) < 2:
        raise DataError(
            f"{where}: has only one class, {names[0]!r}; give at least two classes, each a folder directly "
            "in the source or in its folders train, val and test"
        )
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.casefold().strip(), name)
        if other != name:
            raise DataError(
                f"{where}: classes {other!r} and {name!r} differ in upper and lower case or spaces only; "
                "give them one name"
            )
        if not name.isprintable():
            raise DataError(f"{where}: class {name!r}: has a character that cannot be printed; rename it")


def check_trainable(names: Sequence[str], in_training: Iterable[str], *, where: str) -> None:
    """Checks that each class has training examples.

    Args:
      names: of all classes.
      in_training: the class of each training example.
      where: file or folder of the classes.

    Raises:
      DataError: a class has none.
    """
    trained = set(in_training)
    if missing := [name for name in names if name not in trained]:
        raise DataError(
            f"{where}: has no training examples that can be used of {listed(missing, 'class', 'classes')}; "
            "add some, or remove those of other splits"
        )


def _with_values(
    found: Source, target: TargetFormat, values: Mapping[tuple[str, str], np.ndarray | int]
) -> Source:
    """Adds a value to each example, by (split, name)."""
    splits = {
        split: [example.with_value(target.feature_name, values[split, example.name]) for example in examples]
        for split, examples in found.splits.items()
    }
    return dataclasses.replace(found, splits=splits)
