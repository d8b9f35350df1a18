"""The gradient noise scale: Monte Carlo against known G and Sigma, and its state under a strategy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.noise_scale import NoiseScale, small_batch_square_norm, two_size_estimate
from engine.errors import ConfigurationError

# Gradients of one example are Normal(G, diag(SIGMA)), cut into two tensors [12] and [4, 7].
G = np.random.default_rng(0).normal(size=40) * 0.5
SIGMA = np.random.default_rng(1).uniform(0.1, 0.9, size=40)
SQUARE, TRACE = float(np.sum(G**2)), float(np.sum(SIGMA))
SHAPES = {"net": [tf.Variable(tf.zeros([12], tf.float64)), tf.Variable(tf.zeros([4, 7], tf.float64))]}


def cut(gradient):
    return [gradient[:12], tf.reshape(gradient[12:], [4, 7])]


def draw_shares(sizes, draws, seed=0):
    """h_i = n_i g_i / B of every share: [draws, M, 40]; a mean of n draws is Normal(G, SIGMA / n)."""
    n = np.array(sizes, float)[:, None]
    rng = np.random.default_rng([seed, *sizes])
    mean = G + rng.normal(size=(draws, len(sizes), 40)) * np.sqrt(SIGMA / np.maximum(n, 1))
    return mean * n / n.sum()


def ingredients(sizes, draws):
    """S and T of each draw, by the code under test."""
    parts = tf.constant(draw_shares(sizes, draws))
    batch = sum(sizes)

    def one(shares):
        squares = [
            small_batch_square_norm(cut(shares[i]), examples=n, global_batch=batch)
            for i, n in enumerate(sizes)
        ]
        return tf.add_n(squares), tf.reduce_sum(tf.reduce_sum(shares, axis=0) ** 2)

    return tf.vectorized_map(one, parts)


@pytest.mark.parametrize(
    "sizes",
    [(2, 2), (1, 1, 1, 1), (4, 3), (3, 3, 1), (1, 0, 1), (2, 2, 2, 2, 1, 1), (16, 16)],
    ids=["equal", "four", "7on2", "7on3", "empty", "accumulated", "large"],
)
def test_estimates_are_unbiased_for_any_shares(sizes):
    squares, means = ingredients(sizes, 20_000)
    trace, square = two_size_estimate(squares, np.count_nonzero(sizes), means, sum(sizes))
    assert np.mean(trace) == pytest.approx(TRACE, rel=0.02)
    assert np.mean(square) == pytest.approx(SQUARE, rel=0.02)
    assert np.mean(trace) / np.mean(square) == pytest.approx(TRACE / SQUARE, rel=0.02)


def test_equal_shares_give_the_two_size_formula_of_mccandlish():
    small, big, shares = 4, 12, 3
    parts = draw_shares([small] * shares, 1)[0]
    squares = sum(small_batch_square_norm(cut(h), examples=small, global_batch=big) for h in parts)
    t = np.sum(parts.sum(axis=0) ** 2)
    s = np.mean(np.sum((parts * big / small) ** 2, axis=1))
    trace, square = two_size_estimate(squares, shares, t, big)
    assert float(trace) == pytest.approx((s - t) / (1 / small - 1 / big), rel=1e-12)
    assert float(square) == pytest.approx((big * t - small * s) / (big - small), rel=1e-12)


def test_an_empty_share_counts_nothing_whatever_it_holds():
    nothing = small_batch_square_norm([tf.constant([math.nan, 3.0])], examples=tf.constant(0), global_batch=4)
    assert float(nothing) == 0.0 and nothing.dtype == tf.float64


def test_squares_are_added_in_float64():
    tensors = [tf.constant([1e4], tf.float32), *[tf.constant([1.0], tf.float32)] * 5]
    assert float(small_batch_square_norm(tensors, examples=1, global_batch=1)) == 1e8 + 5  # in float32: 1e8


def feed(estimator, steps):
    """Updates with [(sizes of the shares, number of steps), ...], compiled."""

    @tf.function(autograph=False)
    def run(parts, sizes):  # [T, M, 40], [M]
        def body(i):
            shares = tf.unstack(parts[i], num=sizes.shape[0])
            batch = tf.reduce_sum(sizes)
            squares = [
                small_batch_square_norm(cut(h), examples=sizes[k], global_batch=batch)
                for k, h in enumerate(shares)
            ]
            estimator.update(
                small_batch_square_norms=tf.add_n(squares),
                small_batches=tf.math.count_nonzero(sizes),
                gradients={"net": cut(tf.add_n(shares))},
                global_batch=batch,
            )
            return i + 1

        tf.while_loop(lambda i: i < tf.shape(parts)[0], body, [0])

    for sizes, count in steps:
        parts = draw_shares(sizes, count)
        run(tf.constant(parts), tf.constant(sizes))
        yield parts


@pytest.mark.parametrize(
    "steps, combine",
    [
        ([((2, 2), 6000), ((8, 8), 6000)], False),  # a batch of 4, then of 16
        ([((4,), 12000)], True),
        ([((4,), 4000), ((16,), 4000), ((3, 1), 4000)], True),
        ([((1, 0), 12000)], True),
    ],
    ids=["change", "consecutive", "consecutive_change", "one_row_on_two"],
)
def test_averages_are_unbiased_over_many_steps(steps, combine):
    estimator = NoiseScale(SHAPES, smoothing=0.9999, combine_steps=combine)
    means = np.concatenate([parts.sum(axis=1) for parts in feed(estimator, steps)])
    value = estimator.value()
    assert value.trace_covariance == pytest.approx(TRACE, rel=0.02)
    assert value.square_gradient == pytest.approx(SQUARE, rel=0.02)
    assert value.noise_scale == pytest.approx(TRACE / SQUARE, rel=0.02)
    # |gbar|^2 is averaged as it is, with the batches that were used.
    taken = means[1:] if combine else means
    weights = 0.9999 ** np.arange(len(taken))[::-1]
    mean_square = np.average(np.sum(taken**2, axis=1), weights=weights)
    assert value.norm_test_scale == pytest.approx(value.trace_covariance / mean_square, rel=1e-9)


def test_averages_decay_and_are_corrected_for_their_start():
    estimator = NoiseScale(SHAPES, smoothing=0.9)
    (parts,) = feed(estimator, [((3, 1), 7)])
    n = np.array([3, 1])
    t = np.sum(parts.sum(axis=1) ** 2, axis=-1)
    s = np.sum(16 * np.sum(parts**2, axis=-1) / n, axis=-1)
    trace = s - 4 * t
    weights = 0.9 ** np.arange(7)[::-1]
    assert estimator.value().trace_covariance == pytest.approx(np.average(trace, weights=weights), rel=1e-9)
    square = np.average(t - trace / 4, weights=weights)
    assert estimator.value().square_gradient == pytest.approx(square, rel=1e-9)
    assert estimator.value().noise_scale == pytest.approx(
        np.average(trace, weights=weights) / square, rel=1e-9
    )


def test_two_consecutive_steps_are_two_shares_of_one_batch():
    estimator = NoiseScale(SHAPES, combine_steps=True)
    (first,) = feed(estimator, [((5,), 1)])
    assert all(math.isnan(x) for x in vars(estimator.value()).values())  # one step says nothing
    (second,) = feed(estimator, [((2,), 1)])
    shares = np.stack([first[0, 0] * 5 / 7, second[0, 0] * 2 / 7])
    t = np.sum(shares.sum(axis=0) ** 2)
    s = 49 * (np.sum(shares[0] ** 2) / 5 + np.sum(shares[1] ** 2) / 2)
    assert estimator.value().trace_covariance == pytest.approx(s - 7 * t, rel=1e-9)
    assert estimator.value().square_gradient == pytest.approx(t - (s - 7 * t) / 7, rel=1e-9)


def test_one_share_without_the_step_before_gives_nothing():
    estimator = NoiseScale(SHAPES)
    list(feed(estimator, [((4,), 3)]))
    assert all(math.isnan(x) for x in vars(estimator.value()).values())
    assert set(estimator.variables) == {"trace_covariance", "square_gradient", "mean_square", "weight"}


def test_a_gradient_that_noise_hides_has_an_infinite_noise_scale():
    estimator = NoiseScale(SHAPES)
    for name, value in [("trace_covariance", 2.0), ("square_gradient", -0.1), ("mean_square", 4.0)]:
        estimator.variables[name].assign(value * 0.5)
    estimator.variables["weight"].assign(0.5)
    assert estimator.value().noise_scale == math.inf
    assert estimator.value().norm_test_scale == 0.5
    assert (estimator.value().trace_covariance, estimator.value().square_gradient) == (2.0, -0.1)


def test_smoothing_must_be_a_decay():
    with pytest.raises(ConfigurationError, match=r"smoothing = 1.0: must lie in \[0, 1\); 0.99"):
        NoiseScale(SHAPES, smoothing=1.0)


def test_replicas_stay_equal_and_agree_with_one_device():
    # The default collectives of several MirroredStrategy objects in one process collide.
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        estimator = NoiseScale(SHAPES, combine_steps=True)
    sizes = [(1, 0), (1, 0), (4, 3), (1, 0), (2, 2)]
    parts = tf.constant(
        np.concatenate([draw_shares(n, 1, seed=k) for k, n in enumerate(sizes)])
    )  # [5, 2, 40]

    def replica_step(parts, sizes):
        context = tf.distribute.get_replica_context()
        own = context.replica_id_in_sync_group
        batch = tf.reduce_sum(sizes)
        square = small_batch_square_norm(cut(parts[own]), examples=sizes[own], global_batch=batch)
        gradient, square = context.all_reduce(tf.distribute.ReduceOp.SUM, (cut(parts[own]), square))
        estimator.update(
            small_batch_square_norms=square,
            small_batches=tf.math.count_nonzero(sizes),
            gradients={"net": gradient},
            global_batch=batch,
        )

    @tf.function(autograph=False)
    def run(sizes):
        def body(i):
            strategy.run(replica_step, args=(parts[i], sizes[i]))
            return i + 1

        tf.while_loop(lambda i: i < len(parts), body, [0])

    run(tf.constant(sizes))
    for name, variable in estimator.variables.items():
        first, second = (local.numpy() for local in strategy.experimental_local_results(variable))
        np.testing.assert_array_equal(first, second, err_msg=name)
        assert np.any(first != 0), name

    alone = NoiseScale(SHAPES, combine_steps=True)
    for step, n in enumerate(sizes):
        squares = [
            small_batch_square_norm(cut(h), examples=k, global_batch=sum(n))
            for h, k in zip(parts[step], n, strict=True)
        ]
        alone.update(
            small_batch_square_norms=tf.add_n(squares),
            small_batches=np.count_nonzero(n),
            gradients={"net": cut(tf.reduce_sum(parts[step], axis=0))},
            global_batch=sum(n),
        )
    assert vars(estimator.value()) == pytest.approx(vars(alone.value()), rel=1e-12)
