"""Prepared data sets: finding a TFDS data set, its TFRecord shards and its features."""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError, MissingDatasetError
from data.imaging import Classes

DESCRIPTION = "dataset_info.json"
"""Every folder of a data set has this file."""

_MAX_HELD_OUT = 100
_HELD_OUT_FRACTION = 0.05
_METADATA_SUFFIXES = (".json", ".txt")  # of TFDS's files beside the shards
_FRAME_BYTES = 16  # length and checksums that TFRecord adds to each record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A run of records in one TFRecord file.

    Attributes:
      path: the file.
      skip_records: records of the file before the run.
      records: records of the run.
      first_id: id of the first one, its index in the split's storage order.
    """

    path: str
    skip_records: int
    records: int
    first_id: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """The records of a split, or of a part of one, in storage order.

    Attributes:
      shards: the runs of records.
      bytes_per_record: mean size of a record of the split.
      file_bytes: sizes of the files of the split.
    """

    shards: tuple[Shard, ...]
    bytes_per_record: float
    file_bytes: tuple[int, ...] = ()

    @property
    def examples(self) -> int:
        """Number of records."""
        return sum(shard.records for shard in self.shards)

    def part(self, start: int, stop: int) -> Self:
        """Returns the records from `start` to `stop` - 1; they keep their ids."""
        kept, position = [], 0
        for shard in self.shards:
            first = max(start - position, 0)
            last = min(stop - position, shard.records)
            if first < last:
                kept.append(
                    Shard(
                        path=shard.path,
                        skip_records=shard.skip_records + first,
                        records=last - first,
                        first_id=shard.first_id + first,
                    )
                )
            position += shard.records
        return dataclasses.replace(self, shards=tuple(kept))

    def fraction(self, fraction: float, seed: int) -> Self:
        """Returns a run of records at a random position, the same for the same seed; at least one record.

        A larger fraction contains every smaller one of the same seed. Records are stored shuffled, so a run
        is a fair sample.
        """
        count = max(1, round(fraction * self.examples))
        position = np.random.default_rng(seed).random()
        start = int(position * (self.examples - count))
        return self.part(start, start + count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A prepared data set.

    Attributes:
      name: name, or name/config.
      directory: of the version that was opened.
      features: its `tfds` features.
      splits: name -> records, of each split with records.
      metadata: written by `data.prepare`; empty for the data sets of others.
    """

    name: str
    directory: str
    features: tfds.features.FeaturesDict
    splits: Mapping[str, Records]
    metadata: Mapping[str, Any]

    @property
    def image_features(self) -> dict[str, int]:
        """Name of each image feature (Image, or Tensor [H, W, C]) -> its channels."""
        return {
            name: feature.shape[-1]
            for name, feature in self.features.items()
            if isinstance(feature, tfds.features.Image)
            or (isinstance(feature, tfds.features.Tensor) and len(feature.shape) == 3)
        }

    def vector_size(self, feature: str) -> int:
        """Length of the vector of an example, one-hot of a class label; 0 if there is no such feature."""
        if feature not in self.features:
            return 0
        stored = self.features[feature]
        return stored.num_classes if isinstance(stored, tfds.features.ClassLabel) else stored.shape[0]

    @property
    def holds_out(self) -> bool:
        """Whether a part of "train" is held out for evaluation if there is no split "val"."""
        return bool(self.metadata.get("holds_out", True))

    @property
    def side_classes(self) -> tuple[str, ...]:
        """Names of the classes that the side vector encodes; empty if it does not encode classes."""
        return tuple(self.metadata.get("side_classes", ()))

    def has_alpha(self, feature: str) -> bool | None:
        """Whether the last channel of an image feature is transparency; None if that is not recorded."""
        return feature in self.metadata["alpha"] if "alpha" in self.metadata else None

    @property
    def labels(self) -> dict[str, Classes]:
        """The images whose values are classes ("A", "B", "side_map") -> the pixel value of each class.

        It is empty for images with too many values to list them, and for data sets without labels.
        """
        return {
            name: tuple(tuple(pixel) for pixel in classes)
            for name, classes in self.metadata.get("labels", {}).items()
        }


def find_dataset(dataset: str, data_dir: gfile.Path) -> str | None:
    """Returns the directory of the latest version of a data set, or None if there is none.

    Args:
      dataset: name, or name/config.
      data_dir: folder of the data sets.

    Raises:
      DataError: the name is not valid, the data set has several configurations, or its folder cannot be
        read.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)?", dataset) or ".." in dataset:
        raise DataError(f"data set {dataset!r}: not a name; use a name such as 'facades'")
    root = os.path.join(os.fspath(data_dir), dataset)
    found: dict[str, str] = {}  # folder of a configuration, or of the data set -> its latest version
    try:
        for name in ["", *_names_in(root)]:
            folder = os.path.join(root, name) if name else root
            versions = [
                version
                for version in _names_in(folder)
                if tfds.core.Version.is_valid(version)
                and gfile.exists(os.path.join(folder, version, DESCRIPTION))
            ]
            if versions:
                found[folder] = max(versions, key=tfds.core.Version)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror}); check it") from error
    if len(found) > 1:
        configs = sorted(os.path.relpath(folder, os.fspath(data_dir)) for folder in found)
        raise DataError(
            f"data set {dataset!r} in {data_dir}: has several configurations; choose one of "
            f"{', '.join(configs)}"
        )
    return next((os.path.join(folder, version) for folder, version in found.items()), None)


def open_dataset(dataset: str, data_dir: gfile.Path) -> PreparedDataset:
    """Opens a prepared TFDS data set.

    Args:
      dataset: name, or name/config; the latest version is opened.
      data_dir: folder of the data sets.

    Returns:
      A `PreparedDataset`.

    Raises:
      MissingDatasetError: it is not there.
      DataError: a file of it is missing or cut short, or it is not in TFRecord format.
    """
    directory = find_dataset(dataset, data_dir)
    if directory is None:
        raise MissingDatasetError(dataset, data_dir)
    try:
        with _local_metadata(directory) as description:
            info = tfds.builder_from_directory(description).info
    except Exception as error:  # TFDS raises errors of any kind for damaged files
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{directory}: cannot be read ({reason}); prepare it again") from error
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise DataError(f"{directory}: stored as {info.file_format}, which is not TFRecord; prepare it again")
    return PreparedDataset(
        name=dataset,
        directory=directory,
        features=info.features,
        splits={
            name: _records(split, directory) for name, split in info.splits.items() if split.num_examples
        },
        metadata=info.metadata or {},
    )


def split_held_out(train: Records, *, split: str, where: str) -> tuple[Records, Records]:
    """Divides a training split into what is trained on, and its end, which is held out for evaluation.

    Args:
      train: all of the split.
      split: its stored name, such as "train" or "trainB", for the message.
      where: its directory, for the message.

    Raises:
      DataError: there is only one example.
    """
    held_out = min(_MAX_HELD_OUT, max(1, int(train.examples * _HELD_OUT_FRACTION)))
    if held_out == train.examples:
        raise DataError(
            f"{where}: the only example of {split!r} would be held out for evaluation; add examples or a "
            "split 'val', or prepare it with --val_fraction=0, which holds out nothing"
        )
    kept = train.examples - held_out
    return train.part(0, kept), train.part(kept, train.examples)


def _names_in(folder: str) -> list[str]:
    """The names of the entries of a folder; [] if it does not exist."""
    return gfile.list_dir(folder) if gfile.is_dir(folder) else []


@contextlib.contextmanager
def _local_metadata(directory: str) -> Iterator[str]:
    """A folder on a disk with the metadata files of a data set: TFDS cannot read all object stores."""
    if not gfile.is_url(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="gantry_description_") as copies:
        for name in gfile.list_dir(directory):
            if name.endswith(_METADATA_SUFFIXES):
                tf.io.gfile.copy(os.path.join(directory, name), os.path.join(copies, name))
        yield copies


def _records(split: tfds.core.SplitInfo, directory: str) -> Records:
    """Returns the records of a TFDS split in a directory; checks that its files are complete."""
    shards, file_bytes, first_id = [], [], 0
    for filename, length in zip(split.filenames, split.shard_lengths, strict=True):
        path = os.path.join(directory, filename)
        try:
            file_bytes.append(gfile.size_and_mtime(path)[0])
        except FileNotFoundError as error:
            raise DataError(f"{path}: this file of the data set is missing; prepare it again") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check it") from error
        if length:
            shards.append(Shard(path=path, skip_records=0, records=length, first_id=first_id))
        first_id += length
    if sum(file_bytes) < split.num_bytes + _FRAME_BYTES * split.num_examples:
        raise DataError(
            f"{directory}: the files of split {split.name!r} are cut short; copy or "
            "prepare the data set again"
        )
    return Records(
        shards=tuple(shards),
        bytes_per_record=split.num_bytes / split.num_examples,
        file_bytes=tuple(file_bytes),
    )
