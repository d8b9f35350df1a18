"""Writing data sets to disk: the TFDS builder of image sets, and its atomic publication."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf
import tensorflow_datasets as tfds

from data.errors import DataError
from data.records import find_dataset

SHARD_BYTES = 32 * 2**20
"""Aim for a shard's size: passing over a part of one to reach a position stays cheap."""


class AlreadyPreparedError(DataError):
    """The data set to be written is there."""


class ImageSetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A named set of examples of encoded images, each with a name.

    `write` streams: TFDS's own `download_and_prepare` sorts in memory and holds up to 1 GB.

    Args:
        name: of the data set, in snake_case.
        data_dir: folder of the data sets.
        channels: image feature -> number of channels, 1 or 3.
        splits: split -> function that iterates over its examples, {"name": str, feature: bytes of a
            JPEG or PNG}, in the order in which they are to be stored.
        metadata: anything JSON, kept with the data set.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        name: str,
        data_dir: str,
        channels: Mapping[str, int],
        splits: Mapping[str, Callable[[], Iterable[dict]]],
        metadata: Mapping,
    ):
        self.name = name
        self._channels, self._examples, self._metadata = channels, splits, metadata
        super().__init__(data_dir=data_dir)

    def _info(self):
        images = {
            feature: tfds.features.Image(shape=(None, None, channels))
            for feature, channels in self._channels.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), **images}),
            metadata=tfds.core.MetadataDict(self._metadata),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split):
        yield from enumerate(self._examples[split]())

    def write(self, *, examples_per_shard):
        """Writes all splits, holding one example at a time."""
        os.makedirs(self.data_dir)
        writer = tfds.core.SequentialWriter(self.info, examples_per_shard)
        writer.initialize_splits(list(self._examples))
        for split in self._examples:
            writer.add_examples({split: (example for _, example in self._generate_examples(split))})
        writer.close_all()


def write_dataset(*, name, data_dir, channels, splits, metadata, record_bytes, overwrite=False):
    """Writes a data set so that it is there completely or not at all.

    Args:
        name, data_dir, channels, splits, metadata: as of `ImageSetBuilder`.
        record_bytes: expected mean size of an example.
        overwrite: replace a prepared data set of this name.

    Returns:
        The directory of the data set, as str.

    Raises:
        AlreadyPreparedError: it is there, and is not to be overwritten.
        DataError: something else is in its place, or it cannot be written.
    """
    target = pathlib.Path(data_dir, name)
    check_free(name=name, data_dir=data_dir, overwrite=overwrite)
    os.makedirs(data_dir, exist_ok=True)
    # In data_dir itself, so that the rename stays inside one file system.
    with _temporary_directory(name, data_dir) as temporary:
        builder = ImageSetBuilder(
            name=name, data_dir=temporary, channels=channels, splits=splits, metadata=metadata
        )
        try:
            builder.write(examples_per_shard=max(1, int(SHARD_BYTES // record_bytes)))
        except tf.errors.OpError as error:
            raise DataError(
                f"{data_dir}: cannot be written to ({error.message}); free space or choose another data_dir."
            ) from error
        if overwrite and target.exists():
            os.rename(target, pathlib.Path(temporary, "replaced"))
        try:
            os.rename(pathlib.Path(temporary, name), target)
        except OSError as error:
            if find_dataset(name, data_dir) is None:
                raise
            raise AlreadyPreparedError(f"{target}: was prepared meanwhile.") from error
    return os.fspath(find_dataset(name, data_dir))


def check_free(*, name, data_dir, overwrite):
    """Checks that a data set may be written under a name; see `write_dataset`."""
    target = pathlib.Path(data_dir, name)
    if not os.path.lexists(target):
        return
    if find_dataset(name, data_dir) is None:
        raise DataError(
            f"{target}: is there already and is not a prepared data set, so it is never replaced; "
            "choose another name or data_dir."
        )
    if not overwrite:
        raise AlreadyPreparedError(
            f"{target}: is there already; add --overwrite to replace it, or choose another name."
        )


@contextlib.contextmanager
def _temporary_directory(name, data_dir):
    """A directory inside data_dir; one that a killed process left behind is removed."""
    prefix = f".incomplete_{name}_"
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
