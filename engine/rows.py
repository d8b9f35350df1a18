"""Which rows of the global batch a replica holds, and moving tensors between the two views."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ReplicaRows:
    """The rows [first, first + count) of the global batch, on one replica (in replica context).

    A replica without a row of its own (1 example on 2 replicas) computes on one padding row, all zeros,
    whose weight is 0: kernels for empty batches are not reliable.

    Args:
      global_batch, first, count: int32 scalars.
      replicas: how many replicas there are.
    """

    global_batch: tf.Tensor
    first: tf.Tensor
    count: tf.Tensor
    replicas: int

    @property
    def weights(self) -> tf.Tensor:
        """[B] float32: 1 for an example, 0 for a padding row."""
        rows = tf.maximum(self.count, 1)
        return tf.cast(tf.range(rows) < self.count, tf.float32)  # [B]

    def pad(self, rows: tf.Tensor) -> tf.Tensor:
        """[count, ...] -> [B, ...] with B at least 1."""
        padding = tf.maximum(0, 1 - tf.shape(rows)[0])
        return tf.pad(rows, [[0, padding]] + [[0, 0]] * (rows.shape.rank - 1))

    def own(self, whole: tf.Tensor) -> tf.Tensor:
        """[global batch, ...] -> this replica's rows [B, ...]."""
        if self.replicas == 1:
            return whole
        return self.pad(whole[self.first : self.first + self.count])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """[B, ...] of every replica -> [global batch, ...] in example order, equal on every replica."""
        if self.replicas == 1:
            return rows
        after = self.global_batch - self.first - self.count
        spread = tf.pad(  # [global batch, ...], zeros where other replicas have their rows
            rows[: self.count], [[self.first, after]] + [[0, 0]] * (rows.shape.rank - 1)
        )
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, spread)


def replica_rows(global_batch: tf.Tensor) -> ReplicaRows:
    """The rows of the current replica: `engine.batch.rows_of_replicas` as tensors."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    largest = -(-global_batch // replicas)
    first = tf.minimum(global_batch, largest * context.replica_id_in_sync_group)
    count = tf.minimum(largest, global_batch - first)
    return ReplicaRows(global_batch, first, count, replicas)
