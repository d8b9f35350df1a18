"""Running a function on every replica, and collecting what the replicas return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from engine.distribution.devices import Devices


def run_on_replicas(strategy: tf.distribute.Strategy, fn: Callable, *args: Any) -> Any:
    """`strategy.run(fn, args)` for arguments that are not all tensors.

    `TPUStrategy.run` makes a tensor of every argument: it fails on an object such as a phase, and a number
    that became a tensor can no longer make a shape. So the strategy gets only the tensors in `args`; `fn`
    gets everything else as it is.

    Args:
      strategy: runs `fn` on its replicas.
      fn: called in replica context; autograph does not convert it.
      *args: nested structures of tensors, per-replica values and anything else.

    Returns:
      What `fn` returns, per replica.
    """
    flat = tf.nest.flatten(args)
    is_tensor = [isinstance(x, (tf.Tensor, tf.distribute.DistributedValues)) for x in flat]

    def with_tensors(*tensors: tf.Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if is_one else x for is_one, x in zip(is_tensor, flat, strict=True)]
        return fn(*tf.nest.pack_sequence_as(args, filled))

    with_tensors.__name__ = getattr(fn, "__name__", "fn")
    return strategy.run(
        tf.autograph.experimental.do_not_convert(with_tensors),
        args=tuple(x for is_one, x in zip(is_tensor, flat, strict=True) if is_one),
    )


def gather_rows(devices: Devices, per_replica: tf.Tensor) -> tf.Tensor:
    """Joins the rows of all replicas, in order, to one tensor on every worker.

    Call it inside a `tf.function`: TensorFlow warns of eager collectives.

    Args:
      devices: of the run.
      per_replica: a tensor [rows, ...] on each replica.
    """
    strategy = devices.strategy
    if not devices.is_multi_worker:
        return tf.concat(strategy.experimental_local_results(per_replica), axis=0)
    if per_replica.dtype not in (tf.uint8, tf.uint16):
        return strategy.gather(per_replica, axis=0)
    # The multi-worker collectives take no integers of 8 or 16 bits.
    wider = strategy.run(lambda x: tf.cast(x, tf.int32), args=(per_replica,))
    return tf.cast(strategy.gather(wider, axis=0), per_replica.dtype)
