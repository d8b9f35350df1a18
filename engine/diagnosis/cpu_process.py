"""What a training process on a CPU holds beside variables and tensors."""

from __future__ import annotations

import tensorflow as tf

from engine.graphs.functions import operation_count

KERNEL_BYTES = 160 * 2**20
"""What TensorFlow takes once it runs a step, whichever: threads, oneDNN's scratch memory, allocators."""

BYTES_PER_OPERATION = 16 * 2**10
"""What an operation of the graph takes: in Python, in TensorFlow's graph optimisers and executor, and as
compiled primitives. Both are fitted to pix2pix and EfficientNetV2-S; see tests/benchmarks/RESULTS.md."""


def process_bytes(graph: tf.Graph, *, built_bytes: int, state_bytes: int) -> int:
    """Bytes beside variables and tensors: Python, TensorFlow, and the graph.

    Args:
      graph: of the step.
      built_bytes: resident memory of a process that has built the variables and traced nothing.
      state_bytes: of the variables.
    """
    return built_bytes - state_bytes + KERNEL_BYTES + BYTES_PER_OPERATION * operation_count(graph)
