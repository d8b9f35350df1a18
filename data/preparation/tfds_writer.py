"""Publishes data sets atomically: a data set exists completely or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import tensorflow as tf
import tensorflow_datasets as tfds

from data import gfile
from data.errors import DataError
from data.preparation.image_set_builder import Examples, ImageSetBuilder
from data.tfrecords.prepared_dataset import DESCRIPTION, find_dataset

_INCOMPLETE = ".incomplete_"


class AlreadyPreparedError(DataError):
    """A data set of this name exists."""


class _WriteFiles(Protocol):
    """Writes the files of the data set; arguments as of `ImageSetBuilder` and `ImageSetBuilder.write`."""

    def __call__(self, *, data_dir: str, directory: str | None = None) -> None: ...


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
    publish = _publish_in_store if gfile.is_url(data_dir) else _publish_on_disk

    def write_files(*, data_dir: str, directory: str | None = None) -> None:
        builder = ImageSetBuilder(
            name=name, data_dir=data_dir, features=features, splits=splits, metadata=metadata
        )
        builder.write(examples_per_shard=examples_per_shard, directory=directory)

    try:
        publish(write_files, name, data_dir, overwrite=overwrite)
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


def _publish_on_disk(write_files: _WriteFiles, name: str, data_dir: str, *, overwrite: bool) -> None:
    target = pathlib.Path(data_dir, name)
    # The temporary directory is inside data_dir, so that the rename stays in one file system.
    with _data_dir(data_dir), _temporary_directory(name, data_dir) as temporary:
        write_files(data_dir=temporary)
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


def _publish_in_store(write_files: _WriteFiles, name: str, data_dir: str, *, overwrite: bool) -> None:
    incomplete = os.path.join(data_dir, f"{_INCOMPLETE}{name}_{uuid.uuid4().hex}")
    target = os.path.join(data_dir, name, str(ImageSetBuilder.VERSION))
    tf.io.gfile.makedirs(incomplete)
    try:
        with tempfile.TemporaryDirectory(prefix="gantry_description_") as description:
            write_files(data_dir=description, directory=incomplete)
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
