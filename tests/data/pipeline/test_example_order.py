"""The order of examples: once an epoch, windows, positions, and nothing but (seed, epoch)."""

import numpy as np
import pytest
import tensorflow as tf

from data.pipeline.example_order import ExampleOrder

LENGTHS = (5, 1, 7, 3, 4)


def epoch_ids(order, epoch):
    """Ids in the order of drawing, worked out from the definition in the module's docstring."""
    storage = np.split(np.arange(order.examples), np.cumsum(order.shard_lengths)[:-1])
    records = np.concatenate([storage[shard] for shard in order.shard_permutation(epoch).numpy()])
    drawn = []
    for window in range(-(-order.examples // order.window_examples)):
        inside = records[window * order.window_examples :][: order.window_examples]
        drawn.append(inside[order.window_permutation(epoch, window).numpy()])
    return np.concatenate(drawn)


@pytest.mark.parametrize("window_examples", [1, 3, 6, 20, 1000])
def test_every_example_comes_once_an_epoch(window_examples):
    order = ExampleOrder(shard_lengths=LENGTHS, window_examples=window_examples, seed=3)
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(epoch_ids(order, epoch)), np.arange(20))


def test_order_depends_on_seed_and_epoch_only():
    first, again = (ExampleOrder(shard_lengths=LENGTHS, window_examples=6, seed=3) for _ in "ab")
    other = ExampleOrder(shard_lengths=LENGTHS, window_examples=6, seed=4)
    np.testing.assert_array_equal(epoch_ids(first, 7), epoch_ids(again, 7))
    assert (epoch_ids(first, 7) != epoch_ids(first, 8)).any()
    assert (epoch_ids(first, 7) != epoch_ids(other, 7)).any()


def test_windows_of_an_epoch_are_shuffled_differently():
    order = ExampleOrder(shard_lengths=(4000,), window_examples=1000, seed=0)
    permutations = [order.window_permutation(0, window).numpy() for window in range(4)]
    for k, permutation in enumerate(permutations):
        for other in permutations[:k]:
            assert (permutation != other).mean() > 0.9
    # A fair shuffle moves an element by a third of the length on average.
    moved = np.abs(permutations[0] - np.arange(1000)).mean()
    assert 300 < moved < 370


def test_last_window_is_shorter():
    order = ExampleOrder(shard_lengths=LENGTHS, window_examples=6, seed=3)
    assert [len(order.window_permutation(0, window)) for window in range(4)] == [6, 6, 6, 2]


@pytest.mark.parametrize("window_examples", [1, 4, 20])
def test_rest_of_epoch_starts_where_the_window_does(window_examples):
    order = ExampleOrder(shard_lengths=LENGTHS, window_examples=window_examples, seed=1)
    for window in range(-(-20 // window_examples)):
        shards, skips = (x.numpy() for x in order.rest_of_epoch(2, window))
        permuted = order.shard_permutation(2).numpy()
        np.testing.assert_array_equal(shards, permuted[len(permuted) - len(shards) :])
        passed = sum(LENGTHS[shard] for shard in permuted[: len(permuted) - len(shards)])
        assert passed + skips[0] == window * window_examples
        assert skips[0] < LENGTHS[shards[0]] and not skips[1:].any()


def test_position_is_counted_through_epochs_and_windows():
    order = ExampleOrder(shard_lengths=LENGTHS, window_examples=6, seed=0)
    for position, expected in {0: (0, 0, 0), 19: (0, 3, 1), 20: (1, 0, 0), 53: (2, 2, 1)}.items():
        place = order.locate(position)
        assert (place.epoch, place.window, place.offset) == expected


@tf.function
def in_graph(order, epoch, window):
    return order.window_permutation(epoch, window), order.rest_of_epoch(epoch, window)


def test_graph_and_eager_agree():
    order = ExampleOrder(shard_lengths=LENGTHS, window_examples=6, seed=2**62 + 1)
    for epoch, window in [(0, 0), (4, 3), (2**40, 1)]:
        found = in_graph(order, tf.constant(epoch, tf.int64), tf.constant(window, tf.int64))
        expected = order.window_permutation(epoch, window), order.rest_of_epoch(epoch, window)
        for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(x, y)
