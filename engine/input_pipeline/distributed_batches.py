"""Global batches of a data set, distributed over the replicas."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout, rows_of_replicas
from engine.distribution.devices import Devices
from engine.training_data import TrainingData

_ANY_ROW = [0]
"""What a worker without examples reads: a data set cannot make a batch of no rows."""


@contextlib.contextmanager
def reraise_record_errors(
    data: TrainingData, split: str, position_examples: int | None = None
) -> Iterator[None]:
    """Raises the data set's own error where reading fails: TensorFlow's error names no file.

    Args:
      data: whose records are read.
      split: of the data set.
      position_examples: from where they are read, if it is known; those records are checked first.

    Raises:
      data.errors.DataError: a record cannot be used; the message names it.
    """
    try:
        yield
    except (
        tf.errors.DataLossError,  # a wrong checksum
        tf.errors.FailedPreconditionError,  # fewer records than there should be
        tf.errors.InvalidArgumentError,  # no image, or too large
    ):
        data.check_records(split, position_examples)
        raise


def distributed_batches(
    devices: Devices, data: TrainingData, *, position_examples: int, plan: BatchLayout
) -> tf.distribute.DistributedIterator:
    """Iterates over global batches, each replica's rows arranged as the layout says.

    The iterator is never saved in a checkpoint: a restored run, or one whose batch changes, makes a new
    iterator at its position.

    Args:
      devices: of the run.
      data: to read.
      position_examples: examples drawn before the first batch.
      plan: the layout of the batches.
    """
    if devices.is_multi_worker:
        # With TensorFlow's auto-sharding every worker would decode all examples. Here each decodes its own.
        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = plan.replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return _rows_of(data, position_examples, plan, range(first, first + local))

        return iter(devices.strategy.distribute_datasets_from_function(of_worker))
    batches = data.batches(position_examples=position_examples, global_batch=plan.global_batch)
    if plan.is_padded:
        batches = _rearrange(batches, plan.positions(range(plan.replicas)), plan.static_shapes)
    elif plan.rows_are_known:
        batches = batches.map(functools.partial(_of_known_size, size=plan.global_batch))
    return iter(devices.strategy.experimental_distribute_dataset(batches))


def _of_known_size(batch: Mapping[str, Any], *, size: int) -> Mapping[str, Any]:
    """The batch, of whose `size` rows TensorFlow now knows."""

    def known(values: tf.Tensor) -> tf.Tensor:
        return values if values.shape.rank is None else tf.ensure_shape(values, [size, *values.shape[1:]])

    return tf.nest.map_structure(known, batch)


def _rows_of(
    data: TrainingData, position_examples: int, plan: BatchLayout, replicas: Sequence[int]
) -> tf.data.Dataset:
    """The rows of some replicas, which follow one another: one element for each of them in turn."""
    if plan.is_padded:
        return _padded_rows_of(data, position_examples, plan, replicas)
    all_sizes = rows_of_replicas(plan.global_batch, plan.replicas)
    sizes = [all_sizes[replica] for replica in replicas]
    first = sum(all_sizes[: replicas[0]])
    rows = list(range(first, first + sum(sizes))) or _ANY_ROW
    batches = data.batches(position_examples=position_examples, global_batch=plan.global_batch, rows=rows)
    if not sum(sizes):
        return batches.map(lambda batch: {name: x[:0] for name, x in batch.items()})
    return _split(batches, sizes)


def _padded_rows_of(
    data: TrainingData, position_examples: int, plan: BatchLayout, replicas: Sequence[int]
) -> tf.data.Dataset:
    positions = plan.positions(replicas)  # [replicas, rows], -1 for padding
    rows = sorted(positions[positions >= 0]) or _ANY_ROW
    batches = data.batches(position_examples=position_examples, global_batch=plan.global_batch, rows=rows)
    places = np.where(positions < 0, -1, np.searchsorted(rows, positions))
    batches = _rearrange(batches, places, plan.static_shapes)
    return _split(batches, [positions.shape[1]] * len(replicas))


def _split(batches: tf.data.Dataset, sizes: Sequence[int]) -> tf.data.Dataset:
    """Cuts each batch into one element per replica."""
    return batches if len(sizes) == 1 else batches.rebatch(sizes)


def _rearrange(batches: tf.data.Dataset, places: np.ndarray, static_shapes: bool) -> tf.data.Dataset:
    """Makes row n of each batch from its row places[n], zeros where that is -1."""
    places = places.ravel()

    def rearrange(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # Unless shapes are static, the graph must not know the number of rows: one trace fits all batches.
        order = (
            tf.constant(places)
            if static_shapes
            else tf.raw_ops.PlaceholderWithDefault(input=places, shape=[None])
        )
        # Row -1 becomes the last row, which is a row of zeros.
        order %= tf.cast(tf.shape(next(iter(batch.values())))[0] + 1, tf.int64)
        return {
            name: tf.gather(tf.pad(x, [[0, 1]] + [[0, 0]] * (x.shape.rank - 1)), order)
            for name, x in batch.items()
        }

    return batches.map(rearrange).prefetch(1)
