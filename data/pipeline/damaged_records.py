"""Records that were damaged since they were written: found by name, or passed over while training.

TensorFlow names neither file nor record when a checksum is wrong, and its `ignore_errors` drops the
rest of the file. Here every record is found by its own place in its file, so the next is always there.
"""

import struct

import numpy as np
import tensorflow as tf

from data.errors import DataError

_HEADER = struct.Struct("<QI")  # length of the record, checksum of that length
_FOOTER_BYTES = 4
_ATTEMPTS = 8
"""Examples tried in the place of one: this many damaged ones in a row stop the run."""


def record_offsets(shard):
    """Where each record of a file begins, by reading the records' lengths only.

    After a damaged length the next record is looked for by the checksum of its own.

    Args:
        shard: a `data.tfrecords.prepared_dataset.Shard` that spans a whole file.

    Returns:
        int64 [records]; -1 for a record whose length is damaged.

    Raises:
        DataError: so much is damaged that the records cannot be told apart.
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
        raise DataError(f"{shard.path}: too damaged to tell its records apart; prepare the data set again.")
    return np.array(offsets, np.int64)


def read_record(path, offset):
    """Reads the record that begins at an offset of a file, in the graph: string [].

    Raises:
        tf.errors.DataLossError: when it runs, the record is damaged.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # one record is read: a buffer would read on
        byte_offsets=offset,
    )
    records = tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string))
    return records.take(1).get_single_element()


def first_damaged(shard, check):
    """Looks for the first record of a run that cannot be used.

    Args:
        shard: a `data.tfrecords.prepared_dataset.Shard`.
        check: function of a record (string []) in the graph that fails if it cannot be used.

    Returns:
        (index of the record in its file, reason), or None.
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


def _first_sentence(error):
    """The part of TensorFlow's message that says what is wrong."""
    message = error.message.removeprefix("{{function_node").split("}} ")[-1]
    return message.split("\n")[0].split(" [[")[0].strip().rstrip(".")


class TolerantReader:
    """Reads the records of a split by id, and others in the place of damaged ones.

    A damaged record is replaced by the next one in storage order, so that every position still holds an
    example, and the same one after a restart and on any number of workers.

    Args:
        records: all `data.tfrecords.prepared_dataset.Records` of the split.
        ids: (first, last + 1) of those that may be drawn.
        largest_bad_share: part of them that may be damaged before reading fails.
    """

    def __init__(self, *, records, ids, largest_bad_share):
        self.ids = ids
        self._shards = records.shards
        self._paths = tf.constant([shard.path for shard in records.shards])
        self._last_ids = tf.constant(
            [shard.first_id + shard.records - 1 for shard in records.shards], tf.int64
        )
        self._offsets = tf.constant(np.concatenate([record_offsets(shard) for shard in records.shards]))
        self.largest_bad = int(largest_bad_share * (ids[1] - ids[0]))
        # id -> how many were met before it
        self._damaged = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, default_value=-1)

    def read(self, example_id, prepare):
        """Gives `prepare(record, id)` of an example or, if that fails, of the next that can be used.

        Args:
            example_id: int64 [].
            prepare: function of (record string [], id int64 []) in the graph -> structure of tensors.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, more are damaged than may be.
        """
        first, stop = self.ids
        candidates = first + (example_id - first + tf.range(_ATTEMPTS, dtype=tf.int64)) % (stop - first)

        def attempt(number):
            candidate = candidates[number]
            return number, prepare(self.record(candidate), candidate)

        attempts = tf.data.Dataset.range(_ATTEMPTS).map(attempt).ignore_errors()
        number, example = attempts.take(1).get_single_element()
        failed = candidates[:number]
        # Numbered as they are met, each once.
        is_fresh = tf.ensure_shape(self._damaged.lookup(failed) < 0, [None])
        fresh = tf.boolean_mask(failed, is_fresh)
        places = self._damaged.size() + tf.range(tf.size(fresh, tf.int64))
        noted = self._damaged.insert(fresh, places)
        with tf.control_dependencies([noted] if noted is not None else []):
            count = self._damaged.size()
        allowed = tf.debugging.assert_less_equal(
            count, tf.constant(self.largest_bad, tf.int64), "damaged records"
        )
        with tf.control_dependencies([allowed] if allowed is not None else []):
            return tf.nest.map_structure(tf.identity, example)

    def damaged(self):
        """The damaged records met so far, in the order of meeting: a list of (file, index in it)."""
        ids, order = (column.numpy() for column in self._damaged.export())
        met = []
        for example_id in ids[np.argsort(order)].tolist():
            shard = next(shard for shard in self._shards if example_id < shard.first_id + shard.records)
            met.append((shard.path, example_id - shard.first_id))
        return met

    def record(self, example_id):
        """The record of an id: string []; fails if it is damaged."""
        offset = tf.gather(self._offsets, example_id)
        readable = tf.debugging.assert_greater_equal(offset, tf.constant(0, tf.int64))
        with tf.control_dependencies([readable] if readable is not None else []):
            number = tf.searchsorted(self._last_ids, example_id[None])[0]
        return read_record(tf.gather(self._paths, number), offset)


def _is_header(header, bytes_left):
    length, checksum = _HEADER.unpack(header)
    fits = _HEADER.size + length + _FOOTER_BYTES <= bytes_left
    return fits and _masked_checksums(np.frombuffer(header[:8], np.uint8)[None])[0] == checksum


def _next_header(file, start, size, chunk_bytes=1 << 20):
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


def _masked_checksums(lengths):
    """TFRecord's checksum of each row: CRC-32C, rotated and offset. uint8 [N, 8] -> uint32 [N]."""
    checksums = np.full(len(lengths), 0xFFFFFFFF, np.uint32)
    for column in lengths.T:
        checksums = (checksums >> np.uint32(8)) ^ _CRC_TABLE[(checksums ^ column) & 0xFF]
    checksums ^= np.uint32(0xFFFFFFFF)
    return ((checksums >> np.uint32(15)) | (checksums << np.uint32(17))) + np.uint32(0xA282EAD8)


def _crc_table():
    """CRC-32C (Castagnoli) of every byte: uint32 [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    return table


_CRC_TABLE = _crc_table()
