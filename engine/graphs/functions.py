"""The functions that an operation of a graph calls."""

from __future__ import annotations

import tensorflow as tf


def bodies(operation: tf.Operation) -> list[tf.Graph]:
    """The graphs of the functions that an operation calls: a call, branches, or the parts of a loop."""
    names = []
    for attribute in operation.op_def.attr:
        if attribute.type == "func":
            names.append(operation.get_attr(attribute.name).name)
        elif attribute.type == "list(func)":
            names += [function.name for function in operation.get_attr(attribute.name)]
    graph = operation.graph
    # TensorFlow has no public way from the name of a function to its graph.
    return [graph._get_function(name).graph for name in names]  # noqa: SLF001


def operation_count(graph: tf.Graph) -> int:
    """Operations of a graph and of the functions that it calls."""
    return sum(1 + sum(map(operation_count, bodies(each))) for each in graph.get_operations())
