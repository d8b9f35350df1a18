"""A cache of decoded images, in memory or in one file on disk, read by example id."""

import dataclasses
import hashlib
import math
import os
import shutil
import uuid

import tensorflow as tf

from data.gfile import is_url
from data.pipeline.damaged_records import read_record, record_offsets
from data.supply import IN_MEMORY, Supply
from data.tfrecords.prepared_dataset import Records, Shard

_MAX_DISK_FRACTION = 0.5
"""The part of the free disk space that a cache may take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCache:
    """Images of the examples first_id, first_id + 1, ...

    Attributes:
      first_id: id of the first example.
      specs: `tf.TensorSpec` of each image of an example.
      stored: the serialised images of each example, string [examples]; for a cache on disk their offsets in
        the file, int64 [examples].
      path: of the file; None for a cache in memory.
    """

    first_id: int
    specs: tuple[tf.TensorSpec, ...]
    stored: tf.Tensor
    path: str | None

    def images(self, example_id: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Reads the images of an example, in the graph: a tuple of [H, W, C]."""
        entry = tf.gather(self.stored, example_id - self.first_id)
        if self.path is not None:
            entry = read_record(self.path, entry)
        serialised = tf.unstack(tf.io.parse_tensor(entry, tf.string), num=len(self.specs))
        return tuple(
            tf.ensure_shape(tf.io.parse_tensor(image, spec.dtype), spec.shape)
            for image, spec in zip(serialised, self.specs, strict=True)
        )


def make_cache(examples: tf.data.Dataset, *, supply: Supply, path: str) -> tuple[ImageCache | None, str]:
    """Decodes all examples once and caches their images, if they fit.

    Args:
      examples: data set of {"id": int64 [], "images": tuple of [H, W, C]}; ids rise by one.
      supply: the kind of cache and its limits.
      path: of the file, for a cache on disk. A file that exists already is used.

    Returns:
      The cache, or None if the images do not fit; and one line that says which, and why.
    """
    specs = examples.element_spec["images"]
    first_id = int(next(iter(examples))["id"])
    if supply.cache == IN_MEMORY:
        rows, size = _serialise(examples, supply.cache_bytes)
        if rows is None:
            return None, _too_large(supply.cache_bytes, "what the windows leave of ram_budget_bytes")
        cache = ImageCache(first_id=first_id, specs=specs, stored=tf.constant(rows), path=None)
        return cache, f"decoded images are cached in memory: {len(rows)} examples, {size / 2**20:.0f} MiB"
    if not tf.io.gfile.exists(path):
        tf.io.gfile.makedirs(os.path.dirname(path))
        limit = _disk_limit_bytes(os.path.dirname(path))
        if not _write_cache(examples, path, limit):
            return None, _too_large(limit, "half of the free disk space")
    records = sum(1 for _ in tf.data.TFRecordDataset(path))
    offsets = record_offsets(Shard(path=path, skip_records=0, records=records, first_id=0))
    cache = ImageCache(first_id=first_id, specs=specs, stored=tf.constant(offsets), path=path)
    return cache, f"decoded images are cached in {path}: {records} examples"


def cache_path(data_dir: str, name: str, part: Records, *, contents: object) -> str:
    """Returns the cache file for a part of a data set; another one when the data set's files change.

    Args:
      data_dir: folder of the data sets.
      name: of the data set.
      part: its records.
      contents: which images and vectors of a record are cached, in their order; its `repr` identifies it.
    """
    identity = hashlib.blake2b(repr(contents).encode(), digest_size=8)
    for shard in part.shards:
        state = tf.io.gfile.stat(shard.path)
        identity.update(f"{shard} {state.length} {state.mtime_nsec}".encode())
    return os.path.join(data_dir, ".cache", f"{name.replace('/', '_')}-{identity.hexdigest()}.tfrecord")


def _write_cache(examples: tf.data.Dataset, path: str, limit_bytes: float) -> bool:
    """Writes the file of a cache; returns False, and leaves no file, if it would exceed the limit."""
    # A temporary name until the file is complete: an interrupted cache is not used.
    temporary = f"{path}.{uuid.uuid4().hex}"
    try:
        with tf.io.TFRecordWriter(temporary) as file:
            rows, _ = _serialise(examples, limit_bytes, file)
        if rows is None:
            return False
        tf.io.gfile.rename(temporary, path, overwrite=True)
        return True
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)


def _disk_limit_bytes(folder: str) -> float:
    """How many bytes a cache may take in a folder; an object store has no limit."""
    return math.inf if is_url(folder) else int(_MAX_DISK_FRACTION * shutil.disk_usage(folder).free)


def _serialise(
    examples: tf.data.Dataset, limit_bytes: float, file: tf.io.TFRecordWriter | None = None
) -> tuple[list[bytes] | None, int]:
    """Serialises the images of all examples.

    Args:
      examples: as in `make_cache`.
      limit_bytes: stop when they take more.
      file: write them here instead of returning them.

    Returns:
      The serialised examples, [] if they are written to a file, or None if they exceed the limit; and their
      size in bytes.
    """
    serialised = examples.map(
        lambda example: tf.io.serialize_tensor(tf.stack([*map(tf.io.serialize_tensor, example["images"])]))
    )
    rows: list[bytes] = []
    size_bytes = 0
    for row in serialised.as_numpy_iterator():
        size_bytes += len(row)
        if size_bytes > limit_bytes:
            return None, size_bytes
        if file is None:
            rows.append(row)
        else:
            file.write(row)
    return rows, size_bytes


def _too_large(limit_bytes: float, limit_name: str) -> str:
    return f"decoded images are not cached: they take more than {limit_bytes / 2**20:.0f} MiB, {limit_name}"
