"""Streams of records, still encoded: for training from any position on, or in storage order."""

import dataclasses
import functools

import tensorflow as tf

from data.errors import DataError
from data.order import ExampleOrder


def stored_examples(records):
    """Reads records once, in storage order.

    Args:
        records: `data.records.Records`.

    Returns:
        A finite data set of {"record": string [], "id": int64 []}.
    """
    return _read_shards(_shard_table(records))


def training_examples(*, records, seed, window_bytes, position_examples):
    """Reads records for ever in the order of `ExampleOrder`, from a position on.

    Opening at a position passes over whole shards by their record counts and over records of one
    shard undecoded. At most three windows are in memory: the one being drawn from, the one read
    ahead, and the copy that shuffling makes.

    Args:
        records: `data.records.Records` to train on.
        seed: seed of the order.
        window_bytes: encoded bytes of the records shuffled together.
        position_examples: examples drawn since the start of the run.

    Returns:
        An infinite data set of {"record": string [], "id": int64 [], "epoch": int64 []}.
    """
    order = example_order(records=records, seed=seed, window_bytes=window_bytes)
    table = _shard_table(records)
    place = order.locate(position_examples)

    def epoch_windows(epoch):
        first_window = tf.where(epoch == place.epoch, tf.constant(place.window, tf.int64), 0)
        shards, skips = order.rest_of_epoch(epoch, first_window)
        rest = {name: tf.gather(column, shards) for name, column in table.items()}
        rest["skip_records"] += skips
        rest["records"] -= skips
        rest["first_id"] += skips
        windows = _read_shards(rest).batch(order.window_examples)
        numbers = tf.data.Dataset.counter(first_window, dtype=tf.int64)
        return tf.data.Dataset.zip(numbers, windows).map(functools.partial(shuffled, epoch))

    def shuffled(epoch, window, examples):
        permutation = order.window_permutation(epoch, window)
        examples = {name: tf.gather(column, permutation) for name, column in examples.items()}
        return examples | {"epoch": tf.fill(tf.shape(permutation), epoch)}

    windows = tf.data.Dataset.counter(place.epoch, dtype=tf.int64).flat_map(epoch_windows)
    return windows.prefetch(1).unbatch().skip(place.offset)


def check_records(records):
    """Reads every record against its checksum, as nothing but reading it finds damage.

    Raises:
        DataError: names the first file that is damaged or holds too few records.
    """
    for shard in records.shards:
        examples = _read_shards(_shard_table(dataclasses.replace(records, shards=(shard,))))
        try:
            examples.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1)
        except (tf.errors.DataLossError, tf.errors.FailedPreconditionError) as error:
            raise DataError(
                f"{shard.path}: damaged since it was written; prepare the data set again."
            ) from error


def example_order(*, records, seed, window_bytes):
    """The `ExampleOrder` in which `training_examples` reads; a small set is one window."""
    window_examples = max(1, int(window_bytes // records.bytes_per_record))
    return ExampleOrder(
        shard_lengths=tuple(shard.records for shard in records.shards),
        window_examples=min(window_examples, records.examples),
        seed=seed,
    )


def _shard_table(records):
    """The shards as columns: path string [S]; skip_records, records, first_id int64 [S]."""
    table = {"path": tf.constant([shard.path for shard in records.shards])}
    for name in ("skip_records", "records", "first_id"):
        table[name] = tf.constant([getattr(shard, name) for shard in records.shards], tf.int64)
    return table


def _read_shards(table):
    """Reads the runs of records in a table of shards, one after the other."""
    return tf.data.Dataset.from_tensor_slices(table).flat_map(_read_shard)


def _read_shard(shard):
    """Reads one run of records: {"record": string [], "id": int64 []}."""
    stored = tf.data.TFRecordDataset(shard["path"]).skip(shard["skip_records"])
    # Without the assertion a file cut at a record's end would shift every later example unseen.
    all_there = tf.data.experimental.assert_cardinality(shard["records"])
    stored = stored.take(shard["records"]).apply(all_there)
    ids = tf.data.Dataset.range(shard["first_id"], shard["first_id"] + shard["records"])
    return tf.data.Dataset.zip({"record": stored, "id": ids})
