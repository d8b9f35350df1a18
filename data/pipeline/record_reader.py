"""Data sets of records, still encoded: for training from any position, or in storage order.

Training reads in one of three ways, all in the order of `data.pipeline.example_order`:
- `training_examples` reads shards one after the other, a window at a time: the usual way;
- `training_ids` reads nothing, for sources that return an example by its id;
- `training_windows` reads each window on its own, for the tf.data service.
"""

import tensorflow as tf

from data.pipeline.example_order import ExampleOrder
from data.tfrecords.prepared_dataset import Records, Shard


def example_order(*, records: Records, seed: int, window_bytes: int) -> ExampleOrder:
    """Returns the `ExampleOrder` of training on records; a small data set is one window.

    Args:
      records: what to train on.
      seed: of the order.
      window_bytes: encoded bytes of the records shuffled together.
    """
    window_examples = max(1, int(window_bytes // records.bytes_per_record))
    return ExampleOrder(
        shard_lengths=tuple(shard.records for shard in records.shards),
        window_examples=min(window_examples, records.examples),
        seed=seed,
    )


def stored_examples(records: Records) -> tf.data.Dataset:
    """Reads records once, in storage order.

    Returns:
      A finite data set of {"record": string [], "id": int64 []}.
    """
    return _read_shards(_shard_table(records))


def training_examples(*, records: Records, order: ExampleOrder, position_examples: int) -> tf.data.Dataset:
    """Reads records forever, from a position.

    Opening at a position skips whole shards by their record counts, and records of one shard undecoded. At
    most three windows are in memory: the one drawn from, the next one, and a temporary copy while the next
    one is collected.

    Args:
      records: what to train on.
      order: the order of these records.
      position_examples: examples drawn since the start of the run.

    Returns:
      An infinite data set of {"record": string [], "id": int64 [], "epoch": int64 [], "position": int64 []},
      whose position is the number of examples drawn before it since the start of the run.
    """
    table = _shard_table(records)
    start = order.locate(position_examples)

    def epoch_windows(epoch: tf.Tensor) -> tf.data.Dataset:
        first_window = tf.where(epoch == start.epoch, tf.constant(start.window, tf.int64), 0)
        windows = _read_shards(_rest_of_epoch(order, table, epoch, first_window))
        windows = windows.batch(order.window_examples)
        # In deterministic mode one stateful operation in any function of a data set makes all of it
        # sequential: decoding would run in one thread. `counter` and `from_tensors` are stateful; `range` and
        # `from_tensor_slices` are not.
        numbers = tf.data.Dataset.range(first_window, tf.int64.max)
        epochs = tf.data.Dataset.from_tensor_slices([epoch]).repeat()
        return tf.data.Dataset.zip(epochs, numbers, windows)

    def shuffled(epoch: tf.Tensor, window: tf.Tensor, examples: dict[str, tf.Tensor]) -> tf.data.Dataset:
        return _shuffled_window(order, epoch, window, examples)

    windows = tf.data.Dataset.counter(start.epoch, dtype=tf.int64).flat_map(epoch_windows)
    return windows.prefetch(1).flat_map(shuffled).skip(start.offset)


def training_ids(*, records: Records, order: ExampleOrder, position_examples: int) -> tf.data.Dataset:
    """Yields ids, epochs and positions of `training_examples`, and reads nothing.

    Args:
      records: what to train on.
      order: the order of these records.
      position_examples: examples drawn since the start of the run.

    Returns:
      An infinite data set of {"id", "epoch", "position": int64 []}.
    """
    first_ids = _shard_table(records)["first_id"]
    start = order.locate(position_examples)

    def epoch_windows(epoch: tf.Tensor) -> tf.data.Dataset:
        first_window = tf.where(epoch == start.epoch, tf.constant(start.window, tf.int64), 0)
        numbers = tf.data.Dataset.range(first_window, order.windows)
        return numbers.map(lambda window: (epoch, window))

    def window_ids(epoch: tf.Tensor, window: tf.Tensor) -> tf.data.Dataset:
        shards, indices = order.window_records(epoch, window)
        ids = tf.data.Dataset.from_tensor_slices(tf.gather(first_ids, shards) + indices)
        ids = tf.data.Dataset.zip(ids, _window_positions(order, epoch, window))
        return ids.map(lambda example_id, k: {"id": example_id, "epoch": epoch, "position": k})

    windows = tf.data.Dataset.counter(start.epoch, dtype=tf.int64).flat_map(epoch_windows)
    return windows.flat_map(window_ids).skip(start.offset)


def training_windows(*, records: Records, order: ExampleOrder, position_examples: int) -> tf.data.Dataset:
    """Reads what `training_examples` reads, each window on its own, so that processes can share them.

    Starts with the first example of the window at the position. Windows do not begin where shards do: each
    skips half a shard on average.

    Args:
      records: what to train on.
      order: the order of these records.
      position_examples: examples drawn since the start of the run.

    Returns:
      An infinite data set of what `training_examples` yields.
    """
    table = _shard_table(records)
    start = order.locate(position_examples)
    first = start.epoch * order.windows + start.window

    def one_window(number: tf.Tensor) -> tf.data.Dataset:
        epoch, window = number // order.windows, number % order.windows
        examples = _read_shards(_rest_of_epoch(order, table, epoch, window))
        examples = examples.batch(order.window_examples).take(1)
        return examples.flat_map(lambda read: _shuffled_window(order, epoch, window, read))

    return tf.data.Dataset.range(first, tf.int64.max).flat_map(one_window)


def shards_from(records: Records, order: ExampleOrder, position_examples: int) -> list[Shard]:
    """Returns the shards that the next three windows from a position need, in reading order."""
    start = order.locate(position_examples)
    found: dict[Shard, None] = {}
    for ahead in range(3):
        epoch, window = divmod(start.epoch * order.windows + start.window + ahead, order.windows)
        for number in order.window_records(epoch, window)[0].numpy():
            found[records.shards[number]] = None
    return list(found)


def _rest_of_epoch(
    order: ExampleOrder, table: dict[str, tf.Tensor], epoch: tf.Tensor, window: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The shard table of what is left to read of an epoch from the start of a window."""
    shards, skips = order.rest_of_epoch(epoch, window)
    rest = {name: tf.gather(column, shards) for name, column in table.items()}
    rest["skip_records"] += skips
    rest["records"] -= skips
    rest["first_id"] += skips
    return rest


def _shuffled_window(
    order: ExampleOrder, epoch: tf.Tensor, window: tf.Tensor, examples: dict[str, tf.Tensor]
) -> tf.data.Dataset:
    """The examples of a window one by one, shuffled. Indexed one by one: a shuffled copy would double it."""
    permutation = tf.data.Dataset.from_tensor_slices(order.window_permutation(epoch, window))
    return tf.data.Dataset.zip(permutation, _window_positions(order, epoch, window)).map(
        lambda k, position: (
            {name: x[k] for name, x in examples.items()} | {"epoch": epoch, "position": position}
        )
    )


def _window_positions(order: ExampleOrder, epoch: tf.Tensor, window: tf.Tensor) -> tf.data.Dataset:
    """The position in the run of each example of a window, int64 []; goes on behind its end."""
    first = epoch * order.examples + window * order.window_examples
    return tf.data.Dataset.range(first, tf.int64.max)


def _shard_table(records: Records) -> dict[str, tf.Tensor]:
    """The shards as columns: path string [S]; skip_records, records, first_id int64 [S]."""
    table = {"path": tf.constant([shard.path for shard in records.shards])}
    for name in ("skip_records", "records", "first_id"):
        table[name] = tf.constant([getattr(shard, name) for shard in records.shards], tf.int64)
    return table


def _read_shards(table: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """Reads the runs of records in a shard table, one after the other."""
    return tf.data.Dataset.from_tensor_slices(table).flat_map(_read_shard)


def _read_shard(shard: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """Reads one run of records: {"record": string [], "id": int64 []}."""
    stored = tf.data.TFRecordDataset(shard["path"]).skip(shard["skip_records"])
    # Without the assertion a file cut at the end of a record would shift all later examples unnoticed.
    is_complete = tf.data.experimental.assert_cardinality(shard["records"])
    stored = stored.take(shard["records"]).apply(is_complete)
    ids = tf.data.Dataset.range(shard["first_id"], shard["first_id"] + shard["records"])
    return tf.data.Dataset.zip({"record": stored, "id": ids})
