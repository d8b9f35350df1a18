"""Decoded images kept in memory or in one file on disk, each found by its example's id."""

import dataclasses
import hashlib
import math
import os
import shutil
import uuid

import tensorflow as tf

from data.gfile import is_url
from data.pipeline.damaged_records import read_record, record_offsets
from data.supply import IN_MEMORY
from data.tfrecords.prepared_dataset import Shard

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
        An `ImageCache`, or None if the images do not fit; and a line that says which and why.
    """
    specs = examples.element_spec["images"]
    kept = {"first_id": int(next(iter(examples))["id"]), "specs": specs}
    if supply.cache == IN_MEMORY:
        rows, size = _fitting(examples, supply.cache_bytes)
        if rows is None:
            return None, _too_large(supply.cache_bytes, "what the windows leave of ram_budget_bytes")
        cache = ImageCache(stored=tf.constant(rows), path=None, **kept)
        return cache, f"decoded images are kept in memory: {len(rows)} examples, {size / 2**20:.0f} MiB"
    if not tf.io.gfile.exists(path):
        tf.io.gfile.makedirs(os.path.dirname(path))
        limit = _disk_limit_bytes(os.path.dirname(path))
        # Under another name until it is complete: an interrupted cache is not found.
        incomplete = f"{path}.{uuid.uuid4().hex}"
        try:
            with tf.io.TFRecordWriter(incomplete) as file:
                rows, _ = _fitting(examples, limit, file)
            if rows is None:
                return None, _too_large(limit, "half of what is free on the disk")
            tf.io.gfile.rename(incomplete, path, overwrite=True)
        finally:
            if tf.io.gfile.exists(incomplete):
                tf.io.gfile.remove(incomplete)
    examples_held = sum(1 for _ in tf.data.TFRecordDataset(path))
    shard = Shard(path=path, skip_records=0, records=examples_held, first_id=0)
    cache = ImageCache(stored=tf.constant(record_offsets(shard)), path=path, **kept)
    return cache, f"decoded images are kept in {path}: {examples_held} examples"


def cache_path(data_dir, name, part):
    """The file for a part of a data set; another one when the data set's files change."""
    identity = hashlib.blake2b(digest_size=8)
    for shard in part.shards:
        state = tf.io.gfile.stat(shard.path)
        identity.update(f"{shard} {state.length} {state.mtime_nsec}".encode())
    return os.path.join(data_dir, ".cache", f"{name.replace('/', '_')}-{identity.hexdigest()}.tfrecord")


def _disk_limit_bytes(folder):
    """How much a cache may take in a folder; a store does not run full."""
    return math.inf if is_url(folder) else int(_DISK_SHARE * shutil.disk_usage(folder).free)


def _fitting(examples, limit_bytes, file=None):
    """Serialises all examples: (list of them, or of nothing where a file takes them; bytes taken).

    The list is None as soon as they take more than the limit.
    """
    serialised = examples.map(
        lambda example: tf.io.serialize_tensor(tf.stack([*map(tf.io.serialize_tensor, example["images"])]))
    )
    rows, taken_bytes = [], 0
    for row in serialised.as_numpy_iterator():
        taken_bytes += len(row)
        if taken_bytes > limit_bytes:
            return None, taken_bytes
        if file is None:
            rows.append(row)
        else:
            file.write(row)
    return rows, taken_bytes


def _too_large(limit_bytes, limit_name):
    return f"decoded images are not cached: they take more than {limit_bytes / 2**20:.0f} MiB, {limit_name}"
