"""Damaged records: naming the first one, or skipping them in training.

TensorFlow names neither file nor record when a checksum is wrong, and its `ignore_errors` drops the rest of
the file. Here every record is read from its own offset, so the next one can always be read.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from data.errors import DataError
from data.tfrecords.prepared_dataset import Records, Shard

_HEADER = struct.Struct("<QI")  # length of the record, checksum of that length
_FOOTER_BYTES = 4
_ATTEMPTS = 8
"""Records tried for one example: this many damaged records in a row stop the run."""


def record_offsets(shard: Shard) -> np.ndarray:
    """Finds where each record of a file begins, by reading only the records' lengths.

    After a damaged length the next record is found by the checksum of its length.

    Args:
      shard: a shard that spans a whole file.

    Returns:
      int64 [records]; -1 for a record whose length is damaged.

    Raises:
      DataError: the number of records found is not that of the shard.
    """
    offsets, offset = [], 0
    with tf.io.gfile.GFile(shard.path, "rb") as file:
        size = file.size()
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) == _HEADER.size and _is_header(header, size - offset):
                offsets.append(offset)
                offset += _HEADER.size + _HEADER.unpack(header)[0] + _FOOTER_BYTES
            else:
                offsets.append(-1)
                offset = _next_header(file, offset + 1, size)
    if len(offsets) != shard.records:
        raise DataError(f"{shard.path}: too damaged to find its records; prepare the data set again")
    return np.array(offsets, np.int64)


def read_record(path: str | tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Reads the record at an offset of a file, in the graph: string [].

    Raises:
      tf.errors.DataLossError: at run time, when the record is damaged.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # a buffer would read more than this record
        byte_offsets=offset,
    )
    records = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
    return records.take(1).get_single_element()


def first_damaged(shard: Shard, check: Callable[[tf.Tensor], Any]) -> tuple[int, str] | None:
    """Finds the first record of a shard that cannot be used.

    Args:
      shard: the run of records to read.
      check: function of a record (string []) in the graph that fails if the record cannot be used.

    Returns:
      (index of the record in its file, reason), or None if all can be used.
    """
    examples = tf.data.TFRecordDataset(shard.path).skip(shard.skip_records).take(shard.records)
    examples = examples.map(check, num_parallel_calls=2, deterministic=True)
    count = 0
    try:
        for _ in examples:
            count += 1
    except tf.errors.DataLossError:
        return shard.skip_records + count, "its checksum is wrong"
    except tf.errors.InvalidArgumentError as error:
        return shard.skip_records + count, f"cannot be decoded: {_first_sentence(error)}"
    if count < shard.records:
        return shard.skip_records + count, "the file ends before it"
    return None


def _first_sentence(error: tf.errors.OpError) -> str:
    """The part of TensorFlow's message that says what is wrong."""
    message = error.message.removeprefix("{{function_node").split("}} ")[-1]
    return message.split("\n")[0].split(" [[")[0].strip().rstrip(".")


class TolerantReader:
    """Reads the records of a split by id, and replaces damaged ones.

    A damaged record is replaced by the next one in storage order. So every position still has an example, the
    same one after a restart and on any number of workers.

    Lookup tables are stateful, and in deterministic mode one stateful operation in any function of a data set
    makes all of it sequential: with on_bad_record = "skip", decoding runs in one thread.

    Attributes:
      ids: (first, last + 1) of the records that may be drawn.
      max_damaged: number of these that may be damaged before reading fails.
    """

    def __init__(self, *, records: Records, ids: tuple[int, int], largest_bad_share: float) -> None:
        """Finds where the records begin.

        Args:
          records: all records of the split.
          ids: (first, last + 1) of the records that may be drawn.
          largest_bad_share: fraction of these that may be damaged.
        """
        self.ids = ids
        self._shards = records.shards
        self._paths = tf.constant([shard.path for shard in records.shards])
        self._last_ids = tf.constant(
            [shard.first_id + shard.records - 1 for shard in records.shards], tf.int64
        )
        self._offsets = tf.constant(np.concatenate([record_offsets(shard) for shard in records.shards]))
        self.max_damaged = int(largest_bad_share * (ids[1] - ids[0]))
        # id -> number of damaged records found before it
        self._damaged = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, default_value=-1)

    def read(self, example_id: tf.Tensor, prepare: Callable[[tf.Tensor, tf.Tensor], Any]) -> Any:
        """Returns `prepare(record, id)` of an example or, if that fails, of the next one that can be used.

        Args:
          example_id: int64 [].
          prepare: function of (record string [], id int64 []) in the graph -> structure of tensors.

        Raises:
          tf.errors.InvalidArgumentError: at run time, when more than `max_damaged` are damaged.
        """
        first, stop = self.ids
        candidates = first + (example_id - first + tf.range(_ATTEMPTS, dtype=tf.int64)) % (stop - first)

        def attempt(number: tf.Tensor) -> tuple[tf.Tensor, Any]:
            candidate = candidates[number]
            return number, prepare(self.record(candidate), candidate)

        attempts = tf.data.Dataset.range(_ATTEMPTS).map(attempt).ignore_errors()
        number, example = attempts.take(1).get_single_element()
        failed = candidates[:number]
        # Each damaged record gets a number once, in the order in which they are found.
        is_fresh = tf.ensure_shape(self._damaged.lookup(failed) < 0, [None])
        fresh = tf.boolean_mask(failed, is_fresh)
        numbers = self._damaged.size() + tf.range(tf.size(fresh, tf.int64))
        noted = self._damaged.insert(fresh, numbers)
        with tf.control_dependencies([noted] if noted is not None else []):
            count = self._damaged.size()
        allowed = tf.debugging.assert_less_equal(
            count, tf.constant(self.max_damaged, tf.int64), "damaged records"
        )
        with tf.control_dependencies([allowed] if allowed is not None else []):
            return tf.nest.map_structure(tf.identity, example)

    def damaged(self) -> list[tuple[str, int]]:
        """Returns (file, index in it) of each damaged record found so far, in the order of finding."""
        ids, order = (column.numpy() for column in self._damaged.export())
        found = []
        for example_id in ids[np.argsort(order)].tolist():
            shard = next(shard for shard in self._shards if example_id < shard.first_id + shard.records)
            found.append((shard.path, example_id - shard.first_id))
        return found

    def record(self, example_id: tf.Tensor) -> tf.Tensor:
        """Reads the record of an id: string []; fails if it is damaged."""
        offset = tf.gather(self._offsets, example_id)
        readable = tf.debugging.assert_greater_equal(offset, tf.constant(0, tf.int64))
        with tf.control_dependencies([readable] if readable is not None else []):
            shard = tf.searchsorted(self._last_ids, example_id[None])[0]
        return read_record(tf.gather(self._paths, shard), offset)


def _is_header(header: bytes, bytes_left: int) -> bool:
    """Whether bytes are the header of a record that fits into the rest of the file."""
    length, checksum = _HEADER.unpack(header)
    fits = _HEADER.size + length + _FOOTER_BYTES <= bytes_left
    return fits and _masked_checksums(np.frombuffer(header[:8], np.uint8)[None])[0] == checksum


def _next_header(file: tf.io.gfile.GFile, start: int, size: int, chunk_bytes: int = 1 << 20) -> int:
    """Offset of the first header at or after `start`; the end of the file if there is none."""
    while start < size:
        file.seek(start)
        contents = np.frombuffer(file.read(chunk_bytes + _HEADER.size), np.uint8)
        if len(contents) < _HEADER.size:
            return size
        headers = np.lib.stride_tricks.sliding_window_view(contents, _HEADER.size)[:chunk_bytes]
        stored = np.ascontiguousarray(headers[:, 8:]).view("<u4")[:, 0]
        for place in np.nonzero(_masked_checksums(headers[:, :8]) == stored)[0]:
            if _is_header(headers[place].tobytes(), size - start - int(place)):
                return start + int(place)
        start += chunk_bytes
    return size


def _masked_checksums(lengths: np.ndarray) -> np.ndarray:
    """TFRecord's checksum of each row: CRC-32C, rotated and offset. uint8 [N, 8] -> uint32 [N]."""
    checksums = np.full(len(lengths), 0xFFFFFFFF, np.uint32)
    for column in lengths.T:
        checksums = (checksums >> np.uint32(8)) ^ _CRC_TABLE[(checksums ^ column) & 0xFF]
    checksums ^= np.uint32(0xFFFFFFFF)
    return ((checksums >> np.uint32(15)) | (checksums << np.uint32(17))) + np.uint32(0xA282EAD8)


def _crc_table() -> np.ndarray:
    """CRC-32C (Castagnoli) of every byte: uint32 [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    return table


_CRC_TABLE = _crc_table()
