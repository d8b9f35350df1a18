"""Writes data sets as TFDS does, and publishes them atomically."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import math
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import tensorflow as tf
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.tfrecords.fingerprint import DIGESTS, SplitDigests
from data.tfrecords.prepared_dataset import DESCRIPTION, find_dataset

SHARD_BYTES = 32 * 2**20
"""Target size of a shard: that of a shuffle window (`Supply.window_bytes`), so that a window opens two or
three files, and seeking a position skips at most one window of records. TensorFlow recommends at least 10 MB
per file, and 100 MB on remote storage, where more files mean more requests."""

MOST_SHARD_BYTES = 100 * 2**20
"""Largest size of a shard, if the records are larger than expected."""

Examples = Callable[[], Iterable[dict[str, Any]]]
"""A function that iterates over the examples of a split: {"name": str, feature: value to encode}."""

_INCOMPLETE = ".incomplete_"


class AlreadyPreparedError(DataError):
    """A data set of this name exists."""


class ImageSetBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # mypy does not see the base class
):
    """Writes a data set of examples with encoded images and a name each.

    `write` streams: TFDS's own `download_and_prepare` sorts in memory and holds up to 1 GB.

    Args:
      name: of the data set, in snake_case.
      data_dir: folder of the data sets, on a disk: TFDS supports few object stores.
      features: image feature -> its `tfds` feature.
      splits: split -> function that iterates over its examples, in the order in which they are stored.
      metadata: function that returns the metadata of the data set, in JSON types; called after all examples
        have been consumed.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        name: str,
        data_dir: str,
        features: Mapping[str, tfds.features.FeatureConnector],
        splits: Mapping[str, Examples],
        metadata: Callable[[], Mapping],
    ):
        self.name = name
        self._features, self._examples, self._metadata = features, splits, metadata
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), **self._features}),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples[split]())

    def write(self, *, examples_per_shard: Mapping[str, float], directory: str | None = None) -> None:
        """Writes all splits that have examples, one example in memory at a time.

        Args:
          examples_per_shard: split -> number, maybe a fraction: example i belongs to shard i // number.
          directory: that receives the files of the data set; None is TFDS's own, in data_dir.
        """
        os.makedirs(self.data_dir)
        directory = directory or self.data_dir
        digests = {split: SplitDigests() for split in self._examples}
        splits = [
            self._write_split(split, examples_per_shard[split], directory, digests[split])
            for split in self._examples
        ]
        self.info.metadata.update(self._metadata())
        self.info.metadata[DIGESTS] = {
            split.name: digests[split.name].values() for split in splits if split.num_examples
        }
        self.info.set_file_format(tfds.core.FileFormat.TFRECORD, override=True)
        self.info.set_splits(tfds.core.SplitDict([split for split in splits if split.num_examples]))
        self.info.write_to_directory(self.data_dir)
        if directory != self.data_dir:
            for name in os.listdir(self.data_dir):
                tf.io.gfile.copy(os.path.join(self.data_dir, name), os.path.join(directory, name))

    def _write_split(
        self, split: str, examples_per_shard: float, directory: str, digests: SplitDigests
    ) -> tfds.core.SplitInfo:
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name,
            data_dir=self.data_dir,
            split=split,
            filetype_suffix="tfrecord",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",  # the number of shards is not known yet
        )
        # TFDS's SequentialWriter cannot end a shard by its size in bytes.
        lengths: list[int] = []
        num_bytes, shard_bytes, shard, writer = 0, 0, 0, None
        try:
            for index, example in self._generate_examples(split):
                record = self.info.features.serialize_example(example)
                due = int(index / examples_per_shard) > shard or shard_bytes + len(record) > MOST_SHARD_BYTES
                if writer is None or due:
                    if writer is not None:
                        writer.close()
                    path = template.sharded_filepath(shard_index=len(lengths), num_shards=None)
                    writer = tf.io.TFRecordWriter(os.path.join(directory, path.name))
                    lengths.append(0)
                    shard, shard_bytes = int(index / examples_per_shard), 0
                writer.write(record)
                digests.add(example["name"], record)
                lengths[-1] += 1
                num_bytes += len(record)
                shard_bytes += len(record)
        finally:
            if writer is not None:
                writer.close()
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )


class _MakeBuilder(Protocol):
    """`ImageSetBuilder` with all arguments but the folder of the data sets."""

    def __call__(self, *, data_dir: str) -> ImageSetBuilder: ...


def examples_per_shard(*, examples: int, record_bytes: float, readers: int) -> float:
    """Returns how many examples a shard holds, as a fraction, so that shards differ by one at most.

    Args:
      examples: number in the split.
      record_bytes: expected mean size of an example.
      readers: smallest number of shards, unless there are fewer examples: as many can be read in parallel.
    """
    shards = max(readers, math.ceil(examples * record_bytes / SHARD_BYTES))
    return examples / max(1, min(shards, examples))


def write_dataset(
    *,
    name: str,
    data_dir: gfile.Path,
    features: Mapping[str, tfds.features.FeatureConnector],
    splits: Mapping[str, Examples],
    metadata: Callable[[], Mapping],
    examples_per_shard: Mapping[str, float],
    overwrite: bool = False,
) -> str:
    """Writes a data set atomically: afterwards it exists completely or not at all.

    An object store cannot rename a folder: there the files are moved one by one, the description last, and a
    data set without one is not found. Files that a killed process leaves in a store have to be deleted by
    hand.

    Args:
      name: of the data set, in snake_case.
      data_dir: folder of the data sets.
      features: as of `ImageSetBuilder`.
      splits: as of `ImageSetBuilder`; if an iteration raises, nothing is written.
      metadata: as of `ImageSetBuilder`; if it raises, nothing is written.
      examples_per_shard: as of `ImageSetBuilder.write`.
      overwrite: replace a prepared data set of this name.

    Returns:
      The directory of the data set.

    Raises:
      AlreadyPreparedError: the data set exists and `overwrite` is not set.
      DataError: something else has its name, or it cannot be written.
    """
    data_dir = os.fspath(data_dir)
    check_free(name=name, data_dir=data_dir, overwrite=overwrite)
    write = _write_into_store if gfile.is_url(data_dir) else _write_on_disk
    make_builder = functools.partial(
        ImageSetBuilder, name=name, features=features, splits=splits, metadata=metadata
    )
    try:
        write(make_builder, name, data_dir, examples_per_shard=examples_per_shard, overwrite=overwrite)
    except tf.errors.OpError as error:
        raise DataError(
            f"{data_dir}: cannot be written to ({error.message or type(error).__name__}); free space or "
            "choose another data_dir"
        ) from error
    directory = find_dataset(name, data_dir)
    assert directory is not None, "it was just written"
    return directory


def check_free(*, name: str, data_dir: gfile.Path, overwrite: bool) -> None:
    """Checks that a data set can be written under a name; arguments and errors as of `write_dataset`."""
    check_data_dir(data_dir)
    target = os.path.join(data_dir, name)
    if not (gfile.exists(target) or os.path.lexists(target)):  # a broken link does not "exist"
        return
    if find_dataset(name, data_dir) is None:
        raise DataError(
            f"{target}: already exists and is not a prepared data set, so it is never replaced; "
            "choose another name or data_dir"
        )
    if not overwrite:
        raise AlreadyPreparedError(
            f"{target}: already exists; add --overwrite to replace it, or choose another name"
        )


def check_data_dir(data_dir: gfile.Path) -> None:
    """Checks that a folder of data sets exists or can be created; creates nothing.

    Raises:
      DataError: its name cannot be used, a file has it, there is no permission to write, or the store cannot
        be reached.
    """
    existing = data_dir = os.fspath(data_dir)
    if not data_dir:
        raise DataError("data_dir '': is empty; name a folder, such as datasets")
    try:
        data_dir.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"data_dir {data_dir!a}: is not valid UTF-8; rename it or choose another folder"
        ) from error
    if gfile.is_url(data_dir):
        try:
            gfile.exists(data_dir)
        except OSError as error:
            raise DataError(
                f"data_dir {data_dir!r}: cannot be reached ({error.strerror}); check it"
            ) from error
        return
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing) or os.curdir
    if not os.path.isdir(existing):
        raise _not_writable(data_dir, f"{existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _not_writable(data_dir, f"no permission to write in {existing}")


def _not_writable(data_dir: str, reason: str) -> DataError:
    return DataError(
        f"data_dir {data_dir!r}: cannot be created or written to ({reason}); choose another folder"
    )


@contextlib.contextmanager
def _data_dir(data_dir: str) -> Iterator[None]:
    """Makes the folder of the data sets, as `gfile.new_dir` does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(gfile.new_dir(data_dir))
        except (OSError, tf.errors.OpError) as error:
            raise _not_writable(data_dir, gfile.reason_of(error)) from error
        yield


def _write_on_disk(
    make_builder: _MakeBuilder,
    name: str,
    data_dir: str,
    *,
    examples_per_shard: Mapping[str, float],
    overwrite: bool,
) -> None:
    target = pathlib.Path(data_dir, name)
    # The temporary directory is inside data_dir, so that the rename stays in one file system.
    with _data_dir(data_dir), _temporary_directory(name, data_dir) as temporary:
        make_builder(data_dir=temporary).write(examples_per_shard=examples_per_shard)
        if overwrite and target.exists():
            os.rename(target, pathlib.Path(temporary, "replaced"))
        try:
            os.rename(pathlib.Path(temporary, name), target)
        except OSError as error:
            if find_dataset(name, data_dir) is None:
                raise
            raise AlreadyPreparedError(
                f"{target}: was prepared meanwhile by another process; use it, or choose another name"
            ) from error


def _write_into_store(
    make_builder: _MakeBuilder,
    name: str,
    data_dir: str,
    *,
    examples_per_shard: Mapping[str, float],
    overwrite: bool,
) -> None:
    incomplete = os.path.join(data_dir, f"{_INCOMPLETE}{name}_{uuid.uuid4().hex}")
    target = os.path.join(data_dir, name, str(ImageSetBuilder.VERSION))
    tf.io.gfile.makedirs(incomplete)
    try:
        with tempfile.TemporaryDirectory(prefix="gantry_description_") as description:
            builder = make_builder(data_dir=description)
            builder.write(examples_per_shard=examples_per_shard, directory=incomplete)
        earlier = find_dataset(name, data_dir)
        if earlier is not None:
            if not overwrite:
                raise AlreadyPreparedError(
                    f"{target}: was prepared meanwhile by another process; use it, or choose another name"
                )
            tf.io.gfile.remove(os.path.join(earlier, DESCRIPTION))  # a partly deleted data set is not found
            tf.io.gfile.rmtree(os.path.join(data_dir, name))
        tf.io.gfile.makedirs(target)
        for filename in sorted(gfile.list_dir(incomplete), key=lambda name: name == DESCRIPTION):
            tf.io.gfile.rename(os.path.join(incomplete, filename), os.path.join(target, filename))
    finally:
        with contextlib.suppress(tf.errors.OpError):  # the name of what remains keeps it from being found
            tf.io.gfile.rmtree(incomplete)


@contextlib.contextmanager
def _temporary_directory(name: str, data_dir: str) -> Iterator[str]:
    """Yields a directory inside data_dir; removes those that killed processes left behind."""
    prefix = f"{_INCOMPLETE}{name}_"
    for leftover in pathlib.Path(data_dir).glob(prefix + "*"):
        with _locked(leftover) as is_unused:
            if is_unused:
                shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=data_dir) as directory, _locked(directory):
        yield directory


@contextlib.contextmanager
def _locked(directory: gfile.Path) -> Iterator[bool]:
    """Locks a directory unless another process has; the system unlocks it when this process ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
