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
      size: B, rows computed on; a Python int where shapes are static, as compilers for fixed shapes need.
      offset: where the rows start among this replica's rows of the step.
      replicas: how many replicas there are.
      is_padded: whether there may be padding rows; a Python bool.
    """

    global_batch: tf.Tensor | int
    examples: tf.Tensor | int
    room: tf.Tensor | int
    skipped: tf.Tensor
    first: tf.Tensor
    count: tf.Tensor
    size: tf.Tensor | int
    offset: tf.Tensor
    replicas: int
    is_padded: bool

    @property
    def is_static(self) -> bool:
        return isinstance(self.size, int)

    @property
    def weights(self) -> tf.Tensor:
        """[B] float32: 1 for an example, 0 for a padding row."""
        return tf.cast(tf.range(self.size) < self.count, tf.float32)  # [B]

    def take(self, rows: tf.Tensor) -> tf.Tensor:
        """This replica's rows of the step, [rows, ...] -> those of the micro-batch [B, ...]."""
        if not self.is_padded:
            return rows
        if self.is_static:
            return tf.gather(rows, self.offset + tf.range(self.size))
        return _with_rows(rows[self.offset : self.offset + self.size], self.size)

    def own(self, whole: tf.Tensor) -> tf.Tensor:
        """[examples, ...] -> this replica's rows [B, ...]."""
        if not self.is_padded:
            return whole
        if self.is_static:
            order = tf.range(self.size)
            return _picked(whole, self.first + order, order < self.count)
        return _with_rows(whole[self.first : self.first + self.count], self.size)

    def own_of_step(self, whole: tf.Tensor) -> tf.Tensor:
        """[global batch, ...] -> this replica's rows of the micro-batch [B, ...]."""
        if self.is_static:
            order = tf.range(self.size)
            return _picked(whole, self.skipped + self.first + order, order < self.count)
        return self.own(whole[self.skipped : self.skipped + self.examples])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """[B, ...] of every replica -> [examples, ...] in example order, equal on every replica."""
        if not self.is_padded:
            return rows
        if self.replicas == 1:
            return rows[: self.examples]
        # [room, ...], zeros where other replicas have their rows
        if self.is_static:
            places = tf.range(self.room) - self.first
            spread = _picked(rows, places, (places >= 0) & (places < self.count))
        else:
            after = self.room - self.first - self.count
            borders = [[self.first, after]] + [[0, 0]] * (rows.shape.rank - 1)
            spread = tf.pad(rows[: self.count], borders)
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


def micro_step(
    global_batch: tf.Tensor | int, micro: tf.Tensor | int, micro_batch: tf.Tensor | int
) -> ReplicaRows:
    """The rows of the current replica in micro-batch number `micro` of `micro_batch` rows a replica.

    Where shapes are static (`micro_batch` and `global_batch` are Python ints), so is the number of examples:
    a micro-batch whose number is a tensor is a full one.
    """
    context = tf.distribute.get_replica_context()
    whole = context.num_replicas_in_sync * micro_batch  # examples of a full micro-batch
    skipped = micro * whole
    if isinstance(skipped, int):
        examples = min(whole, global_batch - skipped)
    elif isinstance(whole, int):
        examples = whole
    else:
        examples = tf.minimum(whole, global_batch - skipped)
    first, count = _share(examples)
    return ReplicaRows(
        global_batch=global_batch,
        examples=examples,
        skipped=skipped,
        room=whole,
        first=first,
        count=count,
        size=micro_batch,
        offset=micro * micro_batch,
        replicas=context.num_replicas_in_sync,
        is_padded=True,
    )


def _share(examples: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """(first, count) of the current replica: `engine.batching.batch_layout.rows_of_replicas` as tensors."""
    context = tf.distribute.get_replica_context()
    largest = -(-examples // context.num_replicas_in_sync)
    first = tf.minimum(examples, largest * context.replica_id_in_sync_group)
    return first, tf.minimum(largest, examples - first)


def _picked(rows: tf.Tensor, places: tf.Tensor, is_there: tf.Tensor) -> tf.Tensor:
    """rows[places[n]] in place n where is_there[n], zeros elsewhere; of a static shape if places has one."""
    picked = tf.gather(rows, tf.clip_by_value(places, 0, tf.shape(rows)[0] - 1))
    is_there = tf.reshape(is_there, [-1] + [1] * (rows.shape.rank - 1))
    return tf.where(is_there, picked, tf.zeros([], rows.dtype))


def _with_rows(rows: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[at most size, ...] -> [size, ...], zeros at the end."""
    missing = size - tf.shape(rows)[0]
    return tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1))
