"""Running a function on every replica, whatever else than tensors it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def run_on_replicas(strategy: tf.distribute.Strategy, fn: Callable, *args: Any):
    """`strategy.run(fn, args)`, of which the strategy sees the tensors only.

    A TPU's makes a tensor of every argument: of a number, which then no shape can be made of, and it has no
    use for a phase. What is no tensor reaches `fn` as it is.
    """
    flat = tf.nest.flatten(args)
    is_tensor = [isinstance(x, (tf.Tensor, tf.distribute.DistributedValues)) for x in flat]

    def with_tensors(*tensors):
        given = iter(tensors)
        whole = [next(given) if taken else x for taken, x in zip(is_tensor, flat, strict=True)]
        return fn(*tf.nest.pack_sequence_as(args, whole))

    with_tensors.__name__ = getattr(fn, "__name__", "fn")
    return strategy.run(
        tf.autograph.experimental.do_not_convert(with_tensors),
        args=tuple(x for taken, x in zip(is_tensor, flat, strict=True) if taken),
    )
