"""The collectives of a training step, as several workers run them, counted in its graph."""

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.graphs.functions import bodies, needed_operations
from tests.helpers.lowering import Recorder, ReplicaProgram
from tests.helpers.traced_steps import trace_steps


class PackingRecorder(Recorder):
    """Traces as a strategy whose all-reduce packs all its values into one buffer.

    TensorFlow's `CollectiveAllReduce` does that, between several workers and between several GPUs.
    """

    def __init__(self, replicas):
        super().__init__(replicas, platform="TPU", program=_PackedProgram)


class _PackedProgram(ReplicaProgram):
    def _replica_ctx_all_reduce(self, reduce_op, value, options=None):
        flat = tf.nest.flatten(value)
        buffer = tf.concat([tf.reshape(x, [-1]) for x in flat], 0)
        buffer = super()._replica_ctx_all_reduce(reduce_op, buffer, options)
        parts = tf.split(buffer, [x.shape.num_elements() for x in flat])
        return tf.nest.pack_sequence_as(
            value, [tf.reshape(part, x.shape) for part, x in zip(parts, flat, strict=True)]
        )


def graph_of_step(task, data, *, replicas, examples_per_replica=1):
    """The graph of a step on one of the replicas, and the state; all phases are due in every step."""
    strategy = PackingRecorder(replicas)
    layout = BatchLayout(global_batch=replicas * examples_per_replica, replicas=replicas, static_shapes=True)
    state = trace_steps(task, data, strategy=strategy, layout=layout)
    (program,) = strategy.programs
    return program.graph, state


def bytes_of_collectives(graph):
    """Bytes of each collective that the graph runs, in no certain order."""
    found = []
    for operation in needed_operations(graph):
        if operation.type == "CrossReplicaSum":
            (tensor,) = operation.outputs
            found.append(tensor.shape.num_elements() * tensor.dtype.size)
        for body in bodies(operation):
            found += bytes_of_collectives(body)
    return found
