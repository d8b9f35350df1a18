"""Which operations a graph runs: those that something depends on, and those of functions that they call."""

from __future__ import annotations

import tensorflow as tf

WITHOUT_MEMORY = frozenset({"Const", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp"})
"""Operations whose outputs are there anyway, or small. They have no effect."""


def needed_operations(graph: tf.Graph) -> list[tf.Operation]:
    """The operations that a result or a variable depends on, in order; TensorFlow leaves out the others."""
    operations = graph.get_operations()
    waiting = [tensor.op for tensor in graph.outputs]
    waiting += [each for each in operations if each.op_def.is_stateful and each.type not in WITHOUT_MEMORY]
    needed: set[tf.Operation] = set()
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return [operation for operation in operations if operation in needed]


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
