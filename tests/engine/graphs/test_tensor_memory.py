"""The memory and the operations of a graph, against sums by hand."""

import pytest
import tensorflow as tf

from engine.graphs.flop import flop_of_graph
from engine.graphs.functions import operation_count
from engine.graphs.tensor_memory import TensorBytes, peak_bytes

IMAGE = 100 * 100 * 4
"""Bytes of one example of `graph_of`."""


def graph_of(function, shape=(None, 100, 100, 1), dtype=tf.float32):
    specs = [tf.TensorSpec(shape, dtype)]
    return tf.function(function, autograph=False, input_signature=specs).get_concrete_function().graph


def chain(x):
    for _ in range(5):
        x = tf.identity(tf.sin(x))
    return x


def kept(x):
    return tf.add_n([tf.sin(x + number) for number in range(5)])


def test_a_chain_takes_two_neighbours_and_kept_tensors_take_all():
    assert peak_bytes(graph_of(chain)).total == 2 * IMAGE
    assert 6 * IMAGE <= peak_bytes(graph_of(kept), in_place=False).total <= 6.1 * IMAGE


@pytest.mark.parametrize("batch", [1, 3])
def test_only_tensors_with_an_unknown_size_grow_with_the_batch(batch):
    weights = tf.Variable(tf.zeros([50, 50]))

    def function(x):
        return tf.sin(x), tf.sin(weights)

    found = peak_bytes(graph_of(function, [None, 100]), batch=batch)
    assert found == TensorBytes(activations=batch * 400, others=10_000)
    assert found.total == batch * 400 + 10_000


def test_element_wise_operations_write_over_an_input_that_nobody_else_needs():
    def overwritten(x):
        return tf.nn.relu(tf.sin(x))

    def needed(x):
        y = tf.sin(x)
        return tf.nn.relu(y), y

    assert peak_bytes(graph_of(overwritten)).total == IMAGE
    assert peak_bytes(graph_of(overwritten), in_place=False).total == 2 * IMAGE
    assert peak_bytes(graph_of(needed)).total == 2 * IMAGE


def test_shapes_and_operations_without_effect_keep_nothing_alive():
    def function(x):
        y = tf.sin(x)
        tf.cos(y)  # nobody takes it
        z = tf.sin(tf.sin(y))
        return z, tf.shape(y)

    assert peak_bytes(graph_of(function)).activations == 2 * IMAGE


def test_a_called_function_counts_with_its_own_peak_and_of_branches_the_largest():
    inner = tf.function(kept, autograph=False)

    def calls(x):
        return inner(tf.sin(x))

    def chooses(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: chain(x), lambda: kept(x))

    alone = peak_bytes(graph_of(kept)).activations
    assert peak_bytes(graph_of(calls)).activations == alone + IMAGE
    assert alone <= peak_bytes(graph_of(chooses)).activations <= alone + IMAGE
    assert operation_count(graph_of(calls)) > operation_count(graph_of(kept))


def test_flop_of_convolutions_and_products_and_of_their_gradients():
    kernel = tf.Variable(tf.zeros([3, 3, 4, 8]))
    depthwise = tf.Variable(tf.zeros([3, 3, 8, 1]))
    up = tf.Variable(tf.zeros([2, 2, 5, 8]))
    dense = tf.Variable(tf.zeros([5, 7]))

    def forward(x):
        x = tf.nn.conv2d(x, kernel, 2, "SAME")  # [B, 8, 8, 8]
        x = tf.nn.depthwise_conv2d(x, depthwise, [1, 1, 1, 1], "SAME")
        x = tf.nn.conv2d_transpose(x, up, [tf.shape(x)[0], 16, 16, 5], 2)
        return tf.matmul(tf.reduce_mean(x, [1, 2]), dense)

    shape = (None, 16, 16, 4)
    parts = [8 * 8 * 8 * 9 * 4, 8 * 8 * 8 * 9, 8 * 8 * 8 * 4 * 5, 5 * 7]  # products of one example
    assert flop_of_graph(graph_of(forward, shape), batch=1) == 2 * sum(parts)
    assert flop_of_graph(graph_of(forward, shape), batch=3) == 6 * sum(parts)

    def backward(x):
        variables = [kernel, depthwise, up, dense]
        with tf.GradientTape() as tape:
            y = forward(x)
        return tape.gradient(y, variables)

    # Each has two gradients of its own cost, but nobody needs that of the pictures.
    assert flop_of_graph(graph_of(backward, shape), batch=1) == 2 * (3 * sum(parts) - parts[0])
