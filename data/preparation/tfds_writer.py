"""Writing data sets to disk: the TFDS builder of image sets, and its atomic publication."""

import contextlib
import fcntl
import functools
import math
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.tfrecords.prepared_dataset import DESCRIPTION, find_dataset

SHARD_BYTES = 32 * 2**20
"""Aim for a shard's size: that of a shuffle window (`Supply.window_bytes`), so that a window opens two or
three files, and a position is reached by passing over no more than a window's worth of records. TensorFlow
wants at least 10 MB a file, and 100 MB on remote storage, where more files mean more requests."""

MOST_SHARD_BYTES = 100 * 2**20
"""Where a shard ends in any case, if the records are larger than was foreseen."""


_INCOMPLETE = ".incomplete_"


class AlreadyPreparedError(DataError):
    """The data set to be written is there."""


class ImageSetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A named set of examples of encoded images, each with a name.

    `write` streams: TFDS's own `download_and_prepare` sorts in memory and holds up to 1 GB.

    Args:
      name: of the data set, in snake_case.
      data_dir: folder of the data sets, on a disk: TFDS knows few kinds of store.
      features: image feature -> its `tfds` feature.
      splits: split -> function that iterates over its examples, {"name": str, feature: what that
        feature encodes}, in the order in which they are to be stored.
      metadata: function that gives what is kept with the data set, anything JSON; called when all
        examples have been taken.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        name: str,
        data_dir: str,
        features: Mapping[str, tfds.features.FeatureConnector],
        splits: Mapping[str, Callable[[], Iterable[dict]]],
        metadata: Callable[[], Mapping],
    ):
        self.name = name
        self._features, self._examples, self._metadata = features, splits, metadata
        super().__init__(data_dir=data_dir)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), **self._features}),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split):
        yield from enumerate(self._examples[split]())

    def write(self, *, examples_per_shard, directory=None):
        """Writes all splits, holding one example at a time; a split without examples is left out.

        Args:
          examples_per_shard: split -> number, may be a fraction: example i is for shard i // number.
          directory: of the data set, where its files belong; None is TFDS's own, in data_dir.
        """
        os.makedirs(self.data_dir)
        directory = directory or self.data_dir
        splits = [self._write_split(split, examples_per_shard[split], directory) for split in self._examples]
        self.info.metadata.update(self._metadata())
        self.info.set_file_format(tfds.core.FileFormat.TFRECORD, override=True)
        self.info.set_splits(tfds.core.SplitDict([split for split in splits if split.num_examples]))
        self.info.write_to_directory(self.data_dir)
        if directory != self.data_dir:
            for name in os.listdir(self.data_dir):
                tf.io.gfile.copy(os.path.join(self.data_dir, name), os.path.join(directory, name))

    def _write_split(self, split, examples_per_shard, directory):
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name,
            data_dir=self.data_dir,
            split=split,
            filetype_suffix="tfrecord",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",  # their number is not known before
        )
        lengths, num_bytes, shard_bytes, shard, writer = [], 0, 0, 0, None
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
                lengths[-1] += 1
                num_bytes += len(record)
                shard_bytes += len(record)
        finally:
            if writer is not None:
                writer.close()
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )


def examples_per_shard(*, examples, record_bytes, readers):
    """How many examples a shard is to hold, as a fraction: shards are as even as can be.

    Args:
      examples: of the split.
      record_bytes: expected mean size of one.
      readers: least number of shards, as far as there are examples: so many can read at once.
    """
    shards = max(readers, math.ceil(examples * record_bytes / SHARD_BYTES))
    return examples / max(1, min(shards, examples))


def write_dataset(*, name, data_dir, features, splits, metadata, examples_per_shard, overwrite=False):
    """Writes a data set so that it is there completely or not at all.

    In a store no folder can be renamed: there its files are moved one by one, the description last, without
    which nobody finds a data set. What a killed process leaves in a store has to be deleted by hand.

    Args:
      name, data_dir, features, splits, metadata: as of `ImageSetBuilder`; what they raise leaves
        nothing behind.
      examples_per_shard: as of `ImageSetBuilder.write`.
      overwrite: replace a prepared data set of this name.

    Returns:
      The directory of the data set, as str.

    Raises:
      AlreadyPreparedError: it is there, and is not to be overwritten.
      DataError: something else is in its place, or it cannot be written.
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
    return find_dataset(name, data_dir)


def check_free(*, name, data_dir, overwrite):
    """Checks that a data set may be written under a name; see `write_dataset`."""
    check_data_dir(data_dir)
    target = os.path.join(data_dir, name)
    if not (gfile.exists(target) or os.path.lexists(target)):  # a link to nothing is in the way too
        return
    if find_dataset(name, data_dir) is None:
        raise DataError(
            f"{target}: is there already and is not a prepared data set, so it is never replaced; "
            "choose another name or data_dir"
        )
    if not overwrite:
        raise AlreadyPreparedError(
            f"{target}: is there already; add --overwrite to replace it, or choose another name"
        )


def check_data_dir(data_dir):
    """Checks that a folder of data sets is there or can be made, and makes nothing.

    Raises:
      DataError: a file is in its way, nothing may be written there, or there is no such store.
    """
    there = data_dir = os.fspath(data_dir)
    if not data_dir:
        raise DataError("data_dir '': is empty; name a folder, such as datasets")
    if gfile.is_url(data_dir):
        try:
            gfile.exists(data_dir)
        except OSError as error:
            raise DataError(
                f"data_dir {data_dir!r}: cannot be reached ({error.strerror}); check it"
            ) from error
        return
    while not os.path.lexists(there):
        there = os.path.dirname(there) or os.curdir
    if not os.path.isdir(there):
        raise _cannot_be_made(data_dir, f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _cannot_be_made(data_dir, f"no permission to write in {there}")


def _cannot_be_made(data_dir, reason):
    return DataError(f"data_dir {data_dir!r}: cannot be made or written ({reason}); choose another folder")


def _write_on_disk(make_builder, name, data_dir, *, examples_per_shard, overwrite):
    target = pathlib.Path(data_dir, name)
    try:
        os.makedirs(data_dir, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(data_dir, error.strerror) from error
    # In data_dir itself, so that the rename stays inside one file system.
    with _temporary_directory(name, data_dir) as temporary:
        make_builder(data_dir=temporary).write(examples_per_shard=examples_per_shard)
        if overwrite and target.exists():
            os.rename(target, pathlib.Path(temporary, "replaced"))
        try:
            os.rename(pathlib.Path(temporary, name), target)
        except OSError as error:
            if find_dataset(name, data_dir) is None:
                raise
            raise AlreadyPreparedError(f"{target}: was prepared meanwhile") from error


def _write_into_store(make_builder, name, data_dir, *, examples_per_shard, overwrite):
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
                raise AlreadyPreparedError(f"{target}: was prepared meanwhile")
            tf.io.gfile.remove(os.path.join(earlier, DESCRIPTION))  # no half of it is ever found
            tf.io.gfile.rmtree(os.path.join(data_dir, name))
        tf.io.gfile.makedirs(target)
        for filename in sorted(gfile.list_dir(incomplete), key=lambda name: name == DESCRIPTION):
            tf.io.gfile.rename(os.path.join(incomplete, filename), os.path.join(target, filename))
    finally:
        with contextlib.suppress(tf.errors.OpError):  # nobody takes it for a data set
            tf.io.gfile.rmtree(incomplete)


@contextlib.contextmanager
def _temporary_directory(name, data_dir):
    """A directory inside data_dir; one that a killed process left behind is removed."""
    prefix = f"{_INCOMPLETE}{name}_"
    for leftover in pathlib.Path(data_dir).glob(prefix + "*"):
        with _locked(leftover) as nobody_writes:
            if nobody_writes:
                shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=data_dir) as directory, _locked(directory):
        yield directory


@contextlib.contextmanager
def _locked(directory):
    """Locks a directory if nobody else has; the system unlocks it when the process dies."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
