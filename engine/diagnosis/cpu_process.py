"""What a training process on a CPU holds beside variables and tensors."""

from __future__ import annotations

import tensorflow as tf

from engine.graphs.functions import operation_count

BYTES_PER_OPERATION = 36 * 2**10
"""What an operation of the graph of a step takes: in Python, in TensorFlow's graph optimisers and executor, and
its kernel with oneDNN's compiled primitives. Measured for pix2pix and EfficientNetV2-S; see
tests/benchmarks/RESULTS.md."""


def process_bytes(graph: tf.Graph, *, built_bytes: int, state_bytes: int) -> int:
    """Bytes beside variables and tensors: Python, TensorFlow, and the graph.

    Args:
      graph: of the step.
      built_bytes: resident memory of a process that has built the variables and traced nothing.
      state_bytes: of the variables.
    """
    return built_bytes - state_bytes + BYTES_PER_OPERATION * operation_count(graph)
