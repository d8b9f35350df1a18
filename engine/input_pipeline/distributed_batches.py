"""From a data set at a position to batches on the replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout, rows_of_replicas
from engine.distribution.devices import Devices
from engine.training_data import TrainingData


@contextlib.contextmanager
def reraise_record_errors(
    data: TrainingData, split: str, position_examples: int | None = None
) -> Iterator[None]:
    """Where reading fails inside, raises the data set's own error: TensorFlow's names no file."""
    try:
        yield
    except (
        tf.errors.DataLossError,  # a checksum
        tf.errors.FailedPreconditionError,  # fewer records than there should be
        tf.errors.InvalidArgumentError,  # no picture, or too large
    ):
        data.check_records(split, position_examples)
        raise


def distributed_batches(devices: Devices, data: TrainingData, *, position_examples: int, plan: BatchLayout):
    """An iterator over global batches from a position, each replica's rows laid out as the plan says.

    A change of batch size makes a new iterator at the position reached; nothing of it is checkpointed.
    """
    if devices.is_multi_worker:
        # Under auto-sharding every worker would decode everything; here each decodes its own rows.
        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = plan.replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return _rows_of(data, position_examples, plan, range(first, first + local))

        return iter(devices.strategy.distribute_datasets_from_function(of_worker))
    batches = data.batches(position_examples=position_examples, global_batch=plan.global_batch)
    if plan.is_padded:
        batches = _arranged(batches, plan.positions(range(plan.replicas)), plan.static_shapes)
    return iter(devices.strategy.experimental_distribute_dataset(batches))


def _rows_of(
    data: TrainingData, position_examples: int, plan: BatchLayout, replicas: Sequence[int]
) -> tf.data.Dataset:
    """What these replicas compute on, one element for each of them in turn."""
    if plan.is_padded:
        positions = plan.positions(replicas)  # [replicas, rows]
        sizes = [positions.shape[1]] * len(replicas)
        rows = sorted(positions[positions >= 0])
    else:
        all_sizes = rows_of_replicas(plan.global_batch, plan.replicas)
        sizes = [all_sizes[replica] for replica in replicas]
        first = sum(all_sizes[: replicas[0]])
        rows = range(first, first + sum(sizes))
    # Replicas without an example read one and keep nothing of it.
    batches = data.batches(
        position_examples=position_examples, global_batch=plan.global_batch, rows=list(rows) or [0]
    )
    if plan.is_padded:
        # The place of each example among those read.
        found = np.searchsorted(list(rows) or [0], positions)
        batches = _arranged(batches, np.where(positions < 0, -1, found), plan.static_shapes)
    elif not sum(sizes):
        return batches.map(lambda batch: {name: x[:0] for name, x in batch.items()})
    return batches if len(sizes) == 1 else batches.rebatch(sizes)


def _arranged(batches: tf.data.Dataset, rows: np.ndarray, static_shapes: bool) -> tf.data.Dataset:
    """Puts row rows[n] of each batch in place n, zeros where it is -1."""
    rows = rows.ravel()

    def arrange(batch):
        # Without static shapes, a tensor whose length the graph does not know: one trace fits all.
        order = (
            tf.constant(rows)
            if static_shapes
            else tf.raw_ops.PlaceholderWithDefault(input=rows, shape=[None])
        )
        places = order % tf.cast(tf.shape(next(iter(batch.values())))[0] + 1, tf.int64)
        return {
            name: tf.gather(tf.pad(x, [[0, 1]] + [[0, 0]] * (x.shape.rank - 1)), places)
            for name, x in batch.items()
        }

    return batches.map(arrange).prefetch(1)
