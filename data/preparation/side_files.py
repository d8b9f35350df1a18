"""Side information of examples: a vector or class from a CSV file, a map from a folder of images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.formats.image_info import ImageRef
from data.formats.raw_video import VideoFormat
from data.preparation.csv_rows import HEADER, by_name, listed, number, read_rows, without_header
from data.preparation.examples import Example, SkippedExample
from data.preparation.folder_reader import FolderReader
from data.preparation.layouts import LAYOUTS
from data.preparation.row_keys import RowKeys
from data.preparation.split_folders import SPLITS
from data.preparation.splits import Source
from data.roles import SIDE_VECTOR
from data.tfrecords.target_format import TargetFormat

MAP_CLASSES, MAP_VALUES = MAP_KINDS = ("classes", "values")
"""What the values of a map are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attached:
    """Examples with their side information and targets.

    Attributes:
      splits: split -> examples.
      vector_size: size of each example's vector; 0 without vectors.
      class_names: of the elements of the vector if it is a one-hot class.
      skipped: examples without a map, and maps without an example.
      target: the format of the targets of labelled images.
    """

    splits: Mapping[str, list[Example]]
    vector_size: int = 0
    class_names: tuple[str, ...] = ()
    skipped: tuple[SkippedExample, ...] = ()
    target: TargetFormat | None = None

    @property
    def features(self) -> dict[str, tfds.features.FeatureConnector]:
        """The `tfds` features of vectors and targets by their names. Maps are images."""
        features = {}
        if self.vector_size:
            features[SIDE_VECTOR] = tfds.features.Tensor(shape=(self.vector_size,), dtype=np.float32)
        if self.target is not None:
            features[self.target.feature_name] = self.target.feature
        return features

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
        if self.maps is None:
            return attached
        reader = FolderReader(video=video)
        maps = _read_maps(self.maps, reader, nested=LAYOUTS[layout].nested)
        return _with_maps(found, attached, self.maps, maps, reader.skipped)


def _with_vectors(
    found: Source, rows: Mapping[str, np.ndarray], class_names: tuple[str, ...], path: str
) -> Attached:
    keys = RowKeys(found, rows, where=path)
    keys.check_rows(header=f"begins with {HEADER!r}")
    splits = {
        split: [
            example.with_value(SIDE_VECTOR, rows[keys.key_of[split, example.name]]) for example in examples
        ]
        for split, examples in found.splits.items()
    }
    size = len(next(iter(rows.values())))
    return Attached(splits=splits, vector_size=size, class_names=class_names)


def _with_maps(
    found: Source,
    attached: Attached,
    folder: str,
    maps: Mapping[str, ImageRef],
    unusable: Sequence[SkippedExample],
) -> Attached:
    keys = RowKeys(found, maps, where=folder)
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


def _read_maps(folder: str, reader: FolderReader, *, nested: bool) -> dict[str, ImageRef]:
    """{"NAME", or "SPLIT/NAME" in folders of splits: map}; the reader has those that cannot be used."""
    if not gfile.is_dir(folder):
        raise DataError(f"{folder}: no such folder; give the folder of the maps")
    splits = [name for name in reader.contents(folder)[0] if name in SPLITS]
    maps = {}
    for split in splits or [""]:
        prefix = f"{split}/" if split else ""
        path = os.path.join(folder, split)
        for example in reader.tree(path) if nested else reader.examples(path):
            maps[prefix + example.name] = example.images[0]
    return maps


def _vectors(path: str) -> dict[str, np.ndarray]:
    """{name: float32 [K]} of a CSV file of numbers."""
    cells, wrong = by_name(without_header(read_rows(path)), path), []
    size = len(next(iter(cells.values())))
    if not size:
        raise DataError(f"{path}: holds only names; write rows of name,number,number,...")
    rows = {}
    for name, texts in cells.items():
        numbers = [number(text) for text in texts]
        with np.errstate(over="ignore"):
            rows[name] = np.array(numbers, np.float32)
        if len(numbers) != size:
            wrong.append(f"{name} ({len(numbers)} numbers, where the first row has {size})")
        elif not np.isfinite(rows[name]).all():
            wrong.append(f"{name} ({texts[int(np.argmin(np.isfinite(rows[name])))]!r})")
    if wrong:
        raise DataError(f"{path}: no row of finite float32 numbers for {listed(wrong, 'name')}; correct them")
    return rows


def _one_hot(path: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """({name: float32 [classes]}, names of the classes) of a CSV file of classes."""
    cells = by_name(without_header(read_rows(path)), path)
    wrong = [name for name, texts in cells.items() if len(texts) != 1 or not texts[0]]
    if wrong:
        raise DataError(f"{path}: no row name,class for {listed(wrong, 'name')}; correct them")
    class_names = tuple(sorted({texts[0] for texts in cells.values()}))
    one_hot = dict(zip(class_names, np.eye(len(class_names), dtype=np.float32), strict=True))
    return {name: one_hot[texts[0]] for name, texts in cells.items()}, class_names
