"""Decoded images kept in memory or in one file on disk, each found by its example's id."""

import dataclasses
import hashlib
import os
import shutil

import tensorflow as tf
from absl import logging

from data.damage import read_record, record_offsets
from data.records import Shard
from data.supply import IN_MEMORY

_DISK_SHARE = 0.5  # of what is free, for a cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCache:
    """Images of the examples first_id, first_id + 1, ...

    Attributes:
        first_id: id of the first example.
        specs: `tf.TensorSpec` of each image of an example.
        stored: string [examples], the images of each, serialised; or int64 [examples], where these lie
            in the file `path`.
        path: of the file; None when the images are in memory.
    """

    first_id: int
    specs: tuple
    stored: tf.Tensor
    path: str | None

    def images(self, example_id):
        """The images of an example, in the graph: a tuple of [H, W, C]."""
        entry = tf.gather(self.stored, example_id - self.first_id)
        if self.path is not None:
            entry = read_record(self.path, entry)
        serialised = tf.unstack(tf.io.parse_tensor(entry, tf.string), num=len(self.specs))
        return tuple(
            tf.ensure_shape(tf.io.parse_tensor(image, spec.dtype), spec.shape)
            for image, spec in zip(serialised, self.specs, strict=True)
        )


def make_cache(examples, *, supply, path):
    """Decodes all examples once and keeps their images, if they fit.

    Args:
        examples: data set of {"id": int64 [], "images": tuple of [H, W, C]}, ids rising by one.
        supply: `data.supply.Supply`: which kind, and how much may be kept.
        path: of the file, for a cache on disk. A file that is there already is used.

    Returns:
        An `ImageCache`, or None if the images do not fit; the log says so.
    """
    specs = examples.element_spec["images"]
    kept = {"first_id": int(next(iter(examples))["id"]), "specs": specs}
    if supply.cache == IN_MEMORY:
        stored = _fitting(examples, supply.cache_bytes, "ram_budget_bytes")
        return stored and ImageCache(stored=tf.constant(stored), path=None, **kept)
    if not tf.io.gfile.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        limit = int(_DISK_SHARE * shutil.disk_usage(os.path.dirname(path)).free)
        # Under another name until it is complete: an interrupted cache is not found.
        incomplete = f"{path}.{os.getpid()}"
        try:
            with tf.io.TFRecordWriter(incomplete) as file:
                count = _fitting(examples, limit, "half of what is free on the disk", file)
            if count is None:
                return None
            os.replace(incomplete, path)
        finally:
            if os.path.exists(incomplete):
                os.remove(incomplete)
    logging.info("decoded images are read from %s", path)
    examples_held = sum(1 for _ in tf.data.TFRecordDataset(path))
    shard = Shard(path=path, skip_records=0, records=examples_held, first_id=0)
    return ImageCache(stored=tf.constant(record_offsets(shard)), path=path, **kept)


def cache_path(data_dir, name, part):
    """The file for a part of a data set; another one when the data set's files change."""
    identity = hashlib.blake2b(digest_size=8)
    for shard in part.shards:
        state = tf.io.gfile.stat(shard.path)
        identity.update(f"{shard} {state.length} {state.mtime_nsec}".encode())
    return os.path.join(data_dir, ".cache", f"{name.replace('/', '_')}-{identity.hexdigest()}.tfrecord")


def _fitting(examples, limit_bytes, limit_name, file=None):
    """Serialises all examples: a list of them or, with a file, their number; None if they do not fit."""
    rows = examples.map(
        lambda example: tf.io.serialize_tensor(tf.stack([*map(tf.io.serialize_tensor, example["images"])]))
    )
    taken_bytes, entries, count = 0, [], 0
    for row in rows.as_numpy_iterator():
        taken_bytes += len(row)
        count += 1
        if taken_bytes > limit_bytes:
            logging.warning(
                "decoded images are not cached: they take more than %d MiB (%s)",
                limit_bytes // 2**20,
                limit_name,
            )
            return None
        if file is None:
            entries.append(row)
        else:
            file.write(row)
    logging.info("decoded images are cached: %d examples, %d MiB", count, taken_bytes // 2**20)
    return count if file else entries
