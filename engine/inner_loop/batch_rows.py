"""Which rows of a step a replica computes on at once, and conversions between the views of a batch."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import tensorflow as tf

from engine.replica_context import sum_over_replicas


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplicaRows(abc.ABC):
    """One micro-batch on one replica (in replica context): B rows, of which the first `count` are examples.

    The other rows are padding, all zeros, with weight 0. They give every micro-batch the same shape, and a
    replica without an example something to compute on (kernels for empty batches are not reliable). Without
    accumulation there is one micro-batch, the whole step.

    A step of 7 examples on R = 2 replicas in micro-batches of B = 2 rows, as replica 1 sees micro-batch 1
    (numbers are positions in the step, dots padding rows):

        step, [global_batch, ...]       0  1  2  3 | 4  5  6        `skipped` = 4
        micro-batch, [examples, ...]                 4  5  6        `examples` = 3, `capacity` = R B = 4
          rows of replica 0                          4  5
          rows of replica 1                                6        `first` = 2, `count` = 1
        padded, [B, ...]                                   6  .     `weights` = 1, 0
        all rows of replica 1           2  3 | 6  .                 `offset` = 2

    Data sets yield the last view; networks compute on the one above it.

    Attributes:
      global_batch: examples of the whole step.
      examples: examples of the micro-batch on all replicas, the rows of `gather`.
      capacity: at least `examples`, and the same in every micro-batch: within one call of a function, a
        collective of several workers must always have the same shape ("Shape mismatch in the collective
        instance").
      skipped: examples of the step in earlier micro-batches.
      first: where this replica's examples start in the micro-batch.
      count: number of this replica's examples.
      size: B, rows that the replica computes on.
      offset: where the rows start among this replica's rows of the step.
      replicas: number of replicas.
      is_padded: whether there may be padding rows; known while tracing.
    """

    global_batch: tf.Tensor | int
    examples: tf.Tensor | int
    capacity: tf.Tensor | int
    skipped: tf.Tensor | int
    first: tf.Tensor
    count: tf.Tensor
    size: tf.Tensor | int
    offset: tf.Tensor | int
    replicas: int
    is_padded: bool

    @property
    def weights(self) -> tf.Tensor:
        """[B] float32: 1 for an example, 0 for a padding row."""
        return tf.cast(tf.range(self.size) < self.count, tf.float32)  # [B]

    @abc.abstractmethod
    def slice_micro_batch(self, replica_rows: tf.Tensor) -> tf.Tensor:
        """All rows of this replica [rows, ...] -> those of the micro-batch [B, ...]."""

    @abc.abstractmethod
    def local_rows(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the micro-batch, [examples, ...] -> this replica's rows [B, ...]."""

    @abc.abstractmethod
    def local_rows_of_step(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the step, [global_batch, ...] -> this replica's rows of the micro-batch [B, ...]."""

    def gather(self, rows: Any) -> Any:
        """[B, ...] of every replica -> [examples, ...] in example order, equal on every replica.

        A nested structure of tensors of one dtype is gathered in one collective.
        """
        if not self.is_padded:
            return rows
        if self.replicas > 1:
            rows = sum_over_replicas(tf.nest.map_structure(self._scatter, rows))
        return tf.nest.map_structure(lambda values: values[: self.examples], rows)

    @abc.abstractmethod
    def _scatter(self, rows: tf.Tensor) -> tf.Tensor:
        """[B, ...] -> [capacity, ...]: zeros where other replicas have their rows."""


class DynamicRows(ReplicaRows):
    """Rows for dynamic shapes: numbers are tensors, and one trace serves any batch and any micro-batch."""

    def slice_micro_batch(self, replica_rows: tf.Tensor) -> tf.Tensor:
        """All rows of this replica [rows, ...] -> those of the micro-batch [B, ...]."""
        if not self.is_padded:
            return replica_rows
        return _pad_to(replica_rows[self.offset : self.offset + self.size], self.size)

    def local_rows(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the micro-batch, [examples, ...] -> this replica's rows [B, ...]."""
        if not self.is_padded:
            return global_rows
        return _pad_to(global_rows[self.first : self.first + self.count], self.size)

    def local_rows_of_step(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the step, [global_batch, ...] -> this replica's rows of the micro-batch [B, ...]."""
        return self.local_rows(global_rows[self.skipped : self.skipped + self.examples])

    def _scatter(self, rows: tf.Tensor) -> tf.Tensor:
        after = self.capacity - self.first - self.count
        return tf.pad(rows[: self.count], [[self.first, after]] + [[0, 0]] * (rows.shape.rank - 1))


class StaticRows(ReplicaRows):
    """Rows for static shapes, known while tracing, which compilers for fixed shapes need; always padded.

    `size` and `capacity` are Python ints. Rows are looked up by index, since a slice with a tensor in its
    bounds has no static shape.
    """

    def slice_micro_batch(self, replica_rows: tf.Tensor) -> tf.Tensor:
        """All rows of this replica [rows, ...] -> those of the micro-batch [B, ...]."""
        return tf.gather(replica_rows, self.offset + tf.range(self.size))

    def local_rows(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the micro-batch, [examples, ...] -> this replica's rows [B, ...]."""
        order = tf.range(self.size)
        return _gather_or_zero(global_rows, self.first + order, order < self.count)

    def local_rows_of_step(self, global_rows: tf.Tensor) -> tf.Tensor:
        """Of the step, [global_batch, ...] -> this replica's rows of the micro-batch [B, ...]."""
        order = tf.range(self.size)
        return _gather_or_zero(global_rows, self.skipped + self.first + order, order < self.count)

    def _scatter(self, rows: tf.Tensor) -> tf.Tensor:
        indices = tf.range(self.capacity) - self.first
        return _gather_or_zero(rows, indices, (indices >= 0) & (indices < self.count))


def whole_step(global_batch: tf.Tensor) -> ReplicaRows:
    """The rows of the current replica when a step is one micro-batch and shapes may vary."""
    context = tf.distribute.get_replica_context()
    first, count = _share_of_replica(global_batch)
    return DynamicRows(
        global_batch=global_batch,
        examples=global_batch,
        skipped=tf.constant(0),
        capacity=global_batch,
        first=first,
        count=count,
        size=tf.maximum(count, 1),
        offset=tf.constant(0),
        replicas=context.num_replicas_in_sync,
        is_padded=context.num_replicas_in_sync > 1,
    )


def micro_step(
    global_batch: tf.Tensor | int, micro: tf.Tensor | int, micro_batch: tf.Tensor | int
) -> ReplicaRows:
    """The rows of the current replica in one micro-batch.

    Args:
      global_batch: examples of the step; like `micro_batch`, a Python int if shapes are static.
      micro: number of the micro-batch. If shapes are static, a tensor stands for any full micro-batch; one
        that is not full has its number as a Python int, and so a trace of its own.
      micro_batch: rows on each replica.
    """
    context = tf.distribute.get_replica_context()
    capacity = context.num_replicas_in_sync * micro_batch  # examples of a full micro-batch
    skipped = micro * capacity
    if isinstance(skipped, int):
        examples = min(capacity, global_batch - skipped)
    elif isinstance(capacity, int):
        examples = capacity
    else:
        examples = tf.minimum(capacity, global_batch - skipped)
    first, count = _share_of_replica(examples)
    kind = StaticRows if isinstance(micro_batch, int) else DynamicRows
    return kind(
        global_batch=global_batch,
        examples=examples,
        skipped=skipped,
        capacity=capacity,
        first=first,
        count=count,
        size=micro_batch,
        offset=micro * micro_batch,
        replicas=context.num_replicas_in_sync,
        is_padded=True,
    )


def _share_of_replica(examples: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """(first, count) of the current replica: `engine.batching.batch_layout.rows_of_replicas` as tensors."""
    context = tf.distribute.get_replica_context()
    largest = -(-examples // context.num_replicas_in_sync)
    first = tf.minimum(examples, largest * context.replica_id_in_sync_group)
    return first, tf.minimum(largest, examples - first)


def _gather_or_zero(rows: tf.Tensor, indices: tf.Tensor, is_valid: tf.Tensor) -> tf.Tensor:
    """rows[indices[n]] where is_valid[n], zeros elsewhere; of a static shape if `indices` has one."""
    gathered = tf.gather(rows, tf.clip_by_value(indices, 0, tf.shape(rows)[0] - 1))
    is_valid = tf.reshape(is_valid, [-1] + [1] * (rows.shape.rank - 1))
    return tf.where(is_valid, gathered, tf.zeros([], rows.dtype))


def _pad_to(rows: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[at most size, ...] -> [size, ...], zeros at the end."""
    missing = size - tf.shape(rows)[0]
    return tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1))
