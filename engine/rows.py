"""Which rows of a step a replica computes on at once, and moving tensors between the views of a batch."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplicaRows:
    """One micro-batch on one replica (in replica context): B rows, of which the first `count` count.

    The other rows are padding, all zeros, with weight 0: they give a replica without an example
    something to compute on (kernels for empty batches are not reliable), and every micro-batch the
    same shape. Without accumulation the one micro-batch is the whole step.

    Args:
      global_batch: examples of the whole step.
      examples: examples of the micro-batch on all replicas, the rows of `gather`.
      room: at least `examples`, and the same in every micro-batch: in one call of the compiled loop
        TensorFlow's collectives of several workers take one shape only.
      skipped: examples of the step in earlier micro-batches.
      first, count: this replica's examples are [first, first + count) of the micro-batch.
      size: B, rows computed on.
      offset: where the rows start among this replica's rows of the step.
      replicas: how many replicas there are.
      is_padded: whether there may be padding rows; a Python bool.
    """

    global_batch: tf.Tensor
    examples: tf.Tensor
    room: tf.Tensor | int
    skipped: tf.Tensor
    first: tf.Tensor
    count: tf.Tensor
    size: tf.Tensor | int
    offset: tf.Tensor
    replicas: int
    is_padded: bool

    @property
    def weights(self) -> tf.Tensor:
        """[B] float32: 1 for an example, 0 for a padding row."""
        return tf.cast(tf.range(self.size) < self.count, tf.float32)  # [B]

    def take(self, rows: tf.Tensor) -> tf.Tensor:
        """This replica's rows of the step, [rows, ...] -> those of the micro-batch [B, ...]."""
        if not self.is_padded:
            return rows
        rows = rows[self.offset : self.offset + self.size]
        return _with_rows(rows, self.size)

    def own(self, whole: tf.Tensor) -> tf.Tensor:
        """[examples, ...] -> this replica's rows [B, ...]."""
        if not self.is_padded:
            return whole
        return _with_rows(whole[self.first : self.first + self.count], self.size)

    def own_of_step(self, whole: tf.Tensor) -> tf.Tensor:
        """[global batch, ...] -> this replica's rows of the micro-batch [B, ...]."""
        return self.own(whole[self.skipped : self.skipped + self.examples])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """[B, ...] of every replica -> [examples, ...] in example order, equal on every replica."""
        if not self.is_padded:
            return rows
        rows = rows[: self.count]
        if self.replicas == 1:
            return rows
        after = self.room - self.first - self.count
        spread = tf.pad(  # [room, ...], zeros where other replicas have their rows
            rows, [[self.first, after]] + [[0, 0]] * (rows.shape.rank - 1)
        )
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, spread)[: self.examples]


def whole_step(global_batch: tf.Tensor) -> ReplicaRows:
    """The rows of the current replica when a step is one micro-batch and shapes may vary."""
    context = tf.distribute.get_replica_context()
    first, count = _share(global_batch)
    return ReplicaRows(
        global_batch=global_batch,
        examples=global_batch,
        skipped=tf.constant(0),
        room=global_batch,
        first=first,
        count=count,
        size=tf.maximum(count, 1),
        offset=tf.constant(0),
        replicas=context.num_replicas_in_sync,
        is_padded=context.num_replicas_in_sync > 1,
    )


def micro_step(global_batch: tf.Tensor, micro: tf.Tensor, micro_batch: tf.Tensor | int) -> ReplicaRows:
    """The rows of the current replica in micro-batch number `micro` of `micro_batch` rows a replica."""
    context = tf.distribute.get_replica_context()
    skipped = micro * context.num_replicas_in_sync * micro_batch
    examples = tf.minimum(context.num_replicas_in_sync * micro_batch, global_batch - skipped)
    first, count = _share(examples)
    return ReplicaRows(
        global_batch=global_batch,
        examples=examples,
        skipped=skipped,
        room=context.num_replicas_in_sync * micro_batch,
        first=first,
        count=count,
        size=micro_batch,
        offset=micro * micro_batch,
        replicas=context.num_replicas_in_sync,
        is_padded=True,
    )


def _share(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(first, count) of the current replica: `engine.batch_plan.rows_of_replicas` as tensors."""
    context = tf.distribute.get_replica_context()
    largest = -(-examples // context.num_replicas_in_sync)
    first = tf.minimum(examples, largest * context.replica_id_in_sync_group)
    return first, tf.minimum(largest, examples - first)


def _with_rows(rows: tf.Tensor, size: tf.Tensor | int) -> tf.Tensor:
    """[at most size, ...] -> [size, ...], zeros at the end."""
    missing = size - tf.shape(rows)[0]
    padded = tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1))
    if isinstance(size, int):
        padded.set_shape([size, *rows.shape[1:]])
    return padded
