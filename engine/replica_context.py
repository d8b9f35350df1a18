"""What layers and losses know of the replica that they compute on.

While it traces a step or an evaluation, the engine sets which rows are padding, and the keys of dropout
outside training. Layers that couple examples add up over all replicas with `sum_over_replicas`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_example_weights: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "example_weights", default=None
)


@contextlib.contextmanager
def set_example_weights(weights: tf.Tensor | None) -> Iterator[None]:
    """Sets what `example_weights` returns, while a replica's step is traced.

    Args:
      weights: [B], 1 for the rows with an example and 0 for padding; None if no row is padding.
    """
    token = _example_weights.set(weights)
    try:
        yield
    finally:
        _example_weights.reset(token)


def example_weights() -> tf.Tensor | None:
    """Returns the weights of the rows of this replica's batch, for layers that couple examples.

    A replica without an example computes on one padding row, which batch norm, for instance, must not count.

    Returns:
      [B], 1 or 0; None where all rows are examples, as outside training.
    """
    return _example_weights.get()


_batches_in_pass: contextvars.ContextVar[int] = contextvars.ContextVar("batches_in_pass", default=1)


@contextlib.contextmanager
def set_batches_in_pass(count: int) -> Iterator[None]:
    """Sets what `batches_in_pass` returns, while a network's pass is traced.

    Args:
      count: batches that are concatenated, of as many rows each.
    """
    token = _batches_in_pass.set(count)
    try:
        yield
    finally:
        _batches_in_pass.reset(token)


def batches_in_pass() -> int:
    """Returns how many batches pass through a network at once, for layers that couple examples.

    Only examples of the same batch may be coupled.
    """
    return _batches_in_pass.get()


_dropout_keys: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("dropout_keys", default=None)


@contextlib.contextmanager
def set_dropout_keys(keys: tf.Tensor | None) -> Iterator[None]:
    """Sets what `dropout_keys` returns, while an evaluation is traced.

    Args:
      keys: int32 [B, 2], of the rows of this replica's batch; None if there is no dropout.
    """
    token = _dropout_keys.set(keys)
    try:
        yield
    finally:
        _dropout_keys.reset(token)


def dropout_keys() -> tf.Tensor | None:
    """Returns the random keys of the rows of this replica's batch, for dropout outside training.

    The key of an example does not depend on the other examples of the batch, nor on the number of replicas.

    Returns:
      int32 [B, 2]; None where networks compute without dropout.
    """
    return _dropout_keys.get()


def computes_on_cpu() -> bool:
    """Returns whether the replica that is being traced is a CPU; False outside a strategy, as in exports."""
    context = tf.distribute.get_replica_context()
    if context is None or not tf.distribute.has_strategy():
        return False
    return all(":CPU:" in name.upper() for name in context.strategy.extended.worker_devices)


_kept_sums: contextvars.ContextVar[list[list[tf.Tensor]] | None] = contextvars.ContextVar(
    "kept_sums", default=None
)
_reused_sums: contextvars.ContextVar[Iterator[list[tf.Tensor]] | None] = contextvars.ContextVar(
    "reused_sums", default=None
)


@contextlib.contextmanager
def keep_sums() -> Iterator[list[list[tf.Tensor]]]:
    """Lists the sums that `sum_over_replicas` computes meanwhile, for `reuse_sums`."""
    sums: list[list[tf.Tensor]] = []
    token = _kept_sums.set(sums)
    try:
        yield sums
    finally:
        _kept_sums.reset(token)


@contextlib.contextmanager
def reuse_sums(sums: list[list[tf.Tensor]]) -> Iterator[None]:
    """Makes `sum_over_replicas` return these sums, for a computation that is made again.

    Their gradients communicate as ever.
    """
    token = _reused_sums.set(iter(sums))
    try:
        yield
    finally:
        _reused_sums.reset(token)


class CommunicationError(RuntimeError):
    """Replicas would communicate where they cannot."""


_communicates: contextvars.ContextVar[bool] = contextvars.ContextVar("communicates", default=True)


@contextlib.contextmanager
def forbid_communication() -> Iterator[None]:
    """Makes `sum_over_replicas` raise `CommunicationError`, while a program of one replica is traced."""
    token = _communicates.set(False)
    try:
        yield
    finally:
        _communicates.reset(token)


def sum_over_replicas(values: Any) -> Any:
    """Returns the sums over all replicas, for layers that couple examples (in replica context).

    It is differentiable any number of times. All replicas must call it, in the same order.

    Args:
      values: a tensor, or a nested structure of tensors, of the same shapes on every replica.

    Returns:
      The same structure.

    Raises:
      CommunicationError: within `forbid_communication`.
    """
    if replica_count() == 1:
        return values
    if not _communicates.get():
        raise CommunicationError("a sum over all replicas, in a program of one of them")
    context = tf.distribute.get_replica_context()
    kept, reused = _kept_sums.get(), _reused_sums.get()

    # `ReplicaContext.all_reduce` searches the graph from its sums back to its inputs. The sums depend on the
    # other replicas too, so every call would search their whole graphs: a CUT with batch norm traces for
    # minutes. The search ends at a stopped gradient.
    @tf.custom_gradient
    def all_reduce(*own: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        if reused is not None:
            sums = next(reused)
        else:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.stop_gradient(x) for x in own])
        if kept is not None:
            kept.append(sums)
        return sums, lambda *gradients: sum_over_replicas(list(gradients))

    return tf.nest.pack_sequence_as(values, all_reduce(*tf.nest.flatten(values)))


def gather_from_replicas(values: tf.Tensor) -> tf.Tensor:
    """Returns the values of every replica, in one all-reduce (in replica context).

    It is differentiable any number of times. All replicas must call it, in the same order.

    Args:
      values: [...], of the same shape on every replica.

    Returns:
      [replicas, ...], in the order of the replicas.
    """
    # Between workers `ReplicaContext.all_gather` takes two collectives, the first one for the shapes. On a
    # TPU it does the same as this.
    if replica_count() == 1:
        return values[tf.newaxis]
    context = tf.distribute.get_replica_context()
    is_own = tf.range(context.num_replicas_in_sync) == context.replica_id_in_sync_group
    is_own = tf.reshape(is_own, [-1] + [1] * values.shape.rank)  # [replicas, 1, ...]
    return sum_over_replicas(tf.where(is_own, values, tf.zeros([], values.dtype)))


def replica_count() -> int:
    """How many replicas compute together; 1 outside replica context."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync
