"""Streams of records, still encoded: for training from any position on, or in storage order.

Training reads in one of three ways, all in the order of `data.pipeline.example_order`:
- `training_examples` reads shards one after the other, windows of them at a time: the usual way;
- `training_ids` reads nothing, for sources that can be asked for any example by its id;
- `training_windows` gives windows to be read apart from one another, for tf.data service.
"""

import tensorflow as tf

from data.pipeline.example_order import ExampleOrder


def example_order(*, records, seed, window_bytes):
    """The `ExampleOrder` of training on records; a small set is one window.

    Args:
        records: `data.tfrecords.prepared_dataset.Records`.
        seed: of the order.
        window_bytes: encoded bytes of the records shuffled together.
    """
    window_examples = max(1, int(window_bytes // records.bytes_per_record))
    return ExampleOrder(
        shard_lengths=tuple(shard.records for shard in records.shards),
        window_examples=min(window_examples, records.examples),
        seed=seed,
    )


def stored_examples(records):
    """Reads records once, in storage order.

    Args:
        records: `data.tfrecords.prepared_dataset.Records`.

    Returns:
        A finite data set of {"record": string [], "id": int64 []}.
    """
    return _read_shards(_shard_table(records))


def training_examples(*, records, order, position_examples):
    """Reads records for ever, from a position on.

    Opening at a position passes over whole shards by their record counts, and over records of one
    shard undecoded. At most three windows are in memory: the one drawn from, the next one, and what
    collecting that one takes for a moment.

    Args:
        records: `data.tfrecords.prepared_dataset.Records` to train on.
        order: their `ExampleOrder`.
        position_examples: examples drawn since the start of the run.

    Returns:
        An infinite data set of {"record": string [], "id": int64 [], "epoch": int64 []}.
    """
    table = _shard_table(records)
    place = order.locate(position_examples)

    def epoch_windows(epoch):
        first_window = tf.where(epoch == place.epoch, tf.constant(place.window, tf.int64), 0)
        windows = _read_shards(_rest_of_epoch(order, table, epoch, first_window))
        windows = windows.batch(order.window_examples)
        # With `counter` or `from_tensors` TensorFlow's deterministic mode would decode in one thread.
        numbers = tf.data.Dataset.range(first_window, tf.int64.max)
        epochs = tf.data.Dataset.from_tensor_slices([epoch]).repeat()
        return tf.data.Dataset.zip(epochs, numbers, windows)

    def shuffled(epoch, window, examples):
        return _drawn(order, epoch, window, examples)

    windows = tf.data.Dataset.counter(place.epoch, dtype=tf.int64).flat_map(epoch_windows)
    return windows.prefetch(1).flat_map(shuffled).skip(place.offset)


def training_ids(*, records, order, position_examples):
    """Gives for ever what `training_examples` would draw, and reads nothing.

    Args, Returns: as there, without "record".
    """
    first_ids = _shard_table(records)["first_id"]
    place = order.locate(position_examples)

    def epoch_windows(epoch):
        first_window = tf.where(epoch == place.epoch, tf.constant(place.window, tf.int64), 0)
        numbers = tf.data.Dataset.range(first_window, order.windows)
        return numbers.map(lambda window: (epoch, window))

    def drawn(epoch, window):
        shards, indices = order.window_records(epoch, window)
        ids = tf.data.Dataset.from_tensor_slices(tf.gather(first_ids, shards) + indices)
        return ids.map(lambda example_id: {"id": example_id, "epoch": epoch})

    windows = tf.data.Dataset.counter(place.epoch, dtype=tf.int64).flat_map(epoch_windows)
    return windows.flat_map(drawn).skip(place.offset)


def training_windows(*, records, order, position_examples):
    """As `training_examples`, but each window is read for itself, so that they may be shared out.

    Windows do not begin where shards do: on average half a shard is passed over for each.
    """
    table = _shard_table(records)
    place = order.locate(position_examples)
    first = place.epoch * order.windows + place.window

    def one_window(number):
        epoch, window = number // order.windows, number % order.windows
        examples = _read_shards(_rest_of_epoch(order, table, epoch, window))
        examples = examples.batch(order.window_examples).take(1)
        return examples.flat_map(lambda read: _drawn(order, epoch, window, read))

    return tf.data.Dataset.range(first, tf.int64.max).flat_map(one_window)


def shards_from(records, order, position_examples):
    """The `Shard`s that training reads next from a position on, for three windows, in that order."""
    place = order.locate(position_examples)
    found = {}
    for ahead in range(3):
        epoch, window = divmod(place.epoch * order.windows + place.window + ahead, order.windows)
        for number in order.window_records(epoch, window)[0].numpy():
            found[records.shards[number]] = None
    return list(found)


def _rest_of_epoch(order, table, epoch, window):
    """The table of what is left to read of an epoch from the start of a window on."""
    shards, skips = order.rest_of_epoch(epoch, window)
    rest = {name: tf.gather(column, shards) for name, column in table.items()}
    rest["skip_records"] += skips
    rest["records"] -= skips
    rest["first_id"] += skips
    return rest


def _drawn(order, epoch, window, examples):
    """The examples of a window one by one, shuffled; picked from it, as a shuffled copy would double it."""
    permutation = tf.data.Dataset.from_tensor_slices(order.window_permutation(epoch, window))
    return permutation.map(lambda k: {name: x[k] for name, x in examples.items()} | {"epoch": epoch})


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
