"""The batches of a split, distributed over the replicas; every example comes once, on any number of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.roles import INPUT
from engine.distribution.devices import Devices
from engine.errors import NonFiniteOutputError
from engine.input_pipeline.distributed_batches import reraise_record_errors
from engine.training_data import TrainingData

EVALUATION_BATCH_PER_REPLICA = 8
"""Examples that a replica evaluates at once."""

_NAME = "name"
_POSITION = "position"
_DROPOUT_SEED = 20
_NAME_BYTES = 512  # of a name; what is longer is cut


class ReplicaBatch(NamedTuple):
    """What a replica gets of a batch: B rows, at least one.

    Attributes:
      features: floating-point features by name, [B, ...], in Keras's floatx.
      rows: how many of the rows are examples: all, or 0 of 1.
      names: uint8 [rows, 512], padded with zeros; [rows, 0] if examples have no names.
      dropout_keys: int32 [B, 2]; see `dropout_keys_at`.
    """

    features: Mapping[str, tf.Tensor]
    rows: tf.Tensor
    names: tf.Tensor
    dropout_keys: tf.Tensor


def split_batches(devices: Devices, data: TrainingData, split: str) -> Iterator[Mapping[str, tf.Tensor]]:
    """Yields the batches of a split in order, per replica; for `replica_batch`.

    Args:
      devices: of the run.
      data: to read.
      split: its name.

    Raises:
      data.errors.DataError: a record cannot be used.
    """
    size = EVALUATION_BATCH_PER_REPLICA * devices.replicas
    positions = tf.data.Dataset.range(2**31 - 1).batch(size)
    batches = tf.data.Dataset.zip(data.evaluation(split, batch=size), positions)
    batches = batches.map(_distributable)
    if devices.is_multi_worker:  # each worker reads the whole split and keeps its own examples
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        batches = batches.with_options(options)
    with reraise_record_errors(data, split):
        yield from devices.strategy.experimental_distribute_dataset(batches)


def replica_batch(batch: Mapping[str, tf.Tensor]) -> ReplicaBatch:
    """The examples of this replica (in replica context)."""
    batch = dict(batch)
    names, positions = batch.pop(_NAME), batch.pop(_POSITION)
    rows = tf.shape(batch[INPUT])[0]
    # The last batch may leave a replica without an example; some oneDNN kernels fail on empty batches.
    # oneDNN stays on all the same: it is 5 times as fast as TensorFlow's own CPU kernels.
    features = {name: _at_least_one_row(values) for name, values in batch.items()}
    # A task may join images with what a network of float64 makes of them.
    features = {name: tf.cast(values, keras.config.floatx()) for name, values in features.items()}
    return ReplicaBatch(features, rows, names, dropout_keys_at(_at_least_one_row(positions)))


def check_finite(is_finite: np.ndarray, *, split: str, done: int) -> None:
    """Checks the outputs of a batch.

    Args:
      is_finite: of each example, [B].
      split: its name.
      done: examples of the split before the batch.

    Raises:
      NonFiniteOutputError: names the first example for which the output is not finite.
    """
    if not np.all(is_finite):
        example = done + int(np.argmin(is_finite))
        raise NonFiniteOutputError(f"example {example} of split {split!r}, counted from 0")


def decoded_names(names: tf.Tensor) -> list[str]:
    """The names of examples, of `ReplicaBatch.names`; empty texts if they have none."""
    return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in names.numpy()]


def dropout_keys_at(positions: tf.Tensor) -> tf.Tensor:
    """Random keys for dropout outside training; an example at one position gets the same mask everywhere.

    Args:
      positions: int32 [B].

    Returns:
      int32 [B, 2].
    """
    return tf.stack([tf.fill(tf.shape(positions), _DROPOUT_SEED), positions], axis=1)


def _at_least_one_row(values: tf.Tensor) -> tf.Tensor:
    """Adds a row of zeros if there is none."""
    missing = tf.maximum(0, 1 - tf.shape(values)[0])
    return tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))


def _distributable(example: Mapping[str, tf.Tensor], positions: tf.Tensor) -> dict[str, tf.Tensor]:
    """What replicas take: floating-point features, and names as numbers: accelerators have no text.

    The positions in the split, int64 [at least B], become a feature too.
    """
    features = {name: x for name, x in example.items() if x.dtype.is_floating}
    if _NAME in example:
        names = tf.io.decode_raw(example[_NAME], tf.uint8, fixed_length=_NAME_BYTES)  # [B, 512]
    else:
        names = tf.zeros([tf.shape(features[INPUT])[0], 0], tf.uint8)
    positions = tf.cast(positions[: tf.shape(features[INPUT])[0]], tf.int32)
    return features | {_NAME: names, _POSITION: positions}
