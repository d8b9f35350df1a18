"""Counts the floating-point operations of the convolutions and matrix products of a graph.

A multiplication and an addition are two operations. Element-wise work is not counted.
"""

from __future__ import annotations

import tensorflow as tf

from engine.graphs.functions import bodies, needed_operations

_TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}

_FORWARD = ("Conv2D", "DepthwiseConv2dNative")


def flop_of_graph(graph: tf.Graph, *, batch: int) -> int:
    """Floating-point operations of a graph and the functions that it calls; of a loop, one iteration.

    Args:
      graph: of a concrete function.
      batch: what unknown sizes count as.
    """
    return sum(
        flop_of_operation(operation, batch=batch)
        + max((flop_of_graph(body, batch=batch) for body in bodies(operation)), default=0)
        for operation in needed_operations(graph)
    )


def flop_of_operation(operation: tf.Operation, *, batch: int) -> int:
    """Floating-point operations of one operation of a graph; 0 where it is no convolution and no product.

    Every value [B, h, w, Cout] that a convolution makes is a sum of k * k * Cin products (of k * k if it is
    depthwise). Both of its gradients, and so a transposed convolution, have as many products as itself.

    Args:
      operation: of a graph.
      batch: what unknown sizes count as.
    """

    def values(tensor: tf.Tensor) -> int:
        return tf.TensorShape([batch if size is None else size for size in tensor.shape]).num_elements()

    kind, inputs, outputs = operation.type, operation.inputs, operation.outputs
    if kind in _FORWARD:
        kernel, large = inputs[1].shape, outputs[0]
    elif kind.endswith("BackpropInput") and kind.removesuffix("BackpropInput") in _FORWARD:
        kernel, large = inputs[1].shape, inputs[2]
    elif kind.endswith("BackpropFilter") and kind.removesuffix("BackpropFilter") in _FORWARD:
        kernel, large = outputs[0].shape, inputs[2]
    elif kind in _TRANSPOSED:
        inner = inputs[0].shape[-2 if operation.get_attr(_TRANSPOSED[kind]) else -1]
        return 2 * (batch if inner is None else inner) * values(outputs[0])
    else:
        return 0
    summed = kernel[:2] if kind.startswith("Depthwise") else kernel[:3]
    return 2 * values(large) * summed.num_elements()
