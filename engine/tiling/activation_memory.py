"""Estimates how much memory a TensorFlow graph needs for its tensors."""

from __future__ import annotations

import tensorflow as tf

_VIEWS = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient"})
"""Operations whose output is the memory of their first input."""

_WITHOUT_MEMORY = frozenset({"ReadVariableOp", "Const", "Placeholder"})
"""Operations whose outputs are there anyway, or small."""


def peak_bytes(graph: tf.Graph) -> int:
    """The most memory that the tensors of a graph take up at once if its operations run in order.

    A tensor lives from the operation that makes it to the last one that takes it. Unknown sizes, such as that
    of the batch, count as 1. Temporary memory of an operation does not count.

    Args:
      graph: of a concrete function. Functions that it calls are opaque: their inputs and outputs count.
    """
    operations = graph.get_operations()
    owner: dict[object, object] = {}  # of a view: the tensor whose memory it is
    last_use: dict[object, int] = {}
    for number, operation in enumerate(operations):
        for tensor in operation.inputs:
            last_use[owner.get(tensor.ref(), tensor.ref())] = number
        if operation.type in _VIEWS:
            viewed = operation.inputs[0].ref()
            owner[operation.outputs[0].ref()] = owner.get(viewed, viewed)
    freed = [0] * len(operations)
    alive = peak = 0
    for number, operation in enumerate(operations):
        if operation.type not in _WITHOUT_MEMORY | _VIEWS:
            for tensor in operation.outputs:
                alive += (size := _bytes(tensor))
                freed[last_use.get(tensor.ref(), number)] += size
        peak = max(peak, alive)
        alive -= freed[number]
    return peak


def _bytes(tensor: tf.Tensor) -> int:
    if tensor.shape.rank is None or not tensor.dtype.size:
        return 0
    return tensor.dtype.size * tf.TensorShape([size or 1 for size in tensor.shape]).num_elements()
