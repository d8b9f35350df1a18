"""Durations, the layout of batches and the arithmetic of actions, by hand."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout, rows_of_replicas
from engine.durations import examples_of
from engine.errors import ConfigurationError
from engine.outer_loop.periodic_action import PeriodicAction, steps_until_next


@pytest.mark.parametrize(
    "duration, expected", [(7, 7), ("7", 7), ("7ex", 7), ("3ep", 30), ("0.25ep", 2), (0, 0)]
)
def test_durations(duration, expected):
    assert examples_of(duration, examples_per_epoch=10, name="X") == expected


@pytest.mark.parametrize("duration", ["7 days", "-3", -3, "1.5ex", "", "ep", True, 2.0, None])
def test_durations_that_are_none(duration):
    with pytest.raises(ConfigurationError, match="X = .*not a length of training; write"):
        examples_of(duration, examples_per_epoch=10, name="X")


def test_rows_of_replicas_hold_every_row_once():
    for replicas in range(1, 6):
        for batch in range(1, 20):
            rows = rows_of_replicas(batch, replicas)
            assert sum(rows) == batch and len(rows) == replicas
            assert max(rows) == -(-batch // replicas)


def test_distributed_batches_are_cut_as_rows_of_replicas_says():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1", "CPU:2"])
    for batch in (1, 3, 4, 7, 8):
        numbers = tf.data.Dataset.range(100).repeat().batch(batch)
        values = next(iter(strategy.experimental_distribute_dataset(numbers)))
        sizes = tuple(len(v) for v in strategy.experimental_local_results(values))
        assert sizes == rows_of_replicas(batch, 3)


@pytest.mark.parametrize("largest", [None, 1, 2, 3, 5])
def test_plans_give_every_example_one_place(largest):
    for replicas in range(1, 5):
        for batch in range(1, 30):
            plan = BatchLayout(global_batch=batch, replicas=replicas, largest_micro_batch=largest)
            k, m = plan.accumulation, plan.micro_batch
            assert m <= (largest or batch)
            # No fewer pieces would do, and none is empty.
            assert k == (1 if largest is None else -(-batch // (replicas * largest))) or m < largest
            assert (k - 1) * replicas * m < batch <= k * replicas * m
            positions = plan.positions(range(replicas)).reshape(replicas, k, m)
            assert sorted(positions[positions >= 0]) == list(range(batch))
            for micro in range(k):
                held = positions[:, micro][positions[:, micro] >= 0]  # replica after replica
                np.testing.assert_array_equal(held, micro * replicas * m + np.arange(len(held)))
            # As even as can be: the fullest replica holds ceil(batch / replicas).
            assert (positions >= 0).sum(axis=(1, 2)).max() == plan.per_replica_batch
            assert plan.per_replica_batch == -(-batch // replicas)


def test_plans_by_hand():
    plan = BatchLayout(global_batch=7, replicas=2, largest_micro_batch=2)
    assert (plan.per_replica_batch, plan.micro_batch, plan.accumulation, plan.is_padded) == (4, 2, 2, True)
    np.testing.assert_array_equal(plan.positions([0, 1]), [[0, 1, 4, 5], [2, 3, 6, -1]])
    whole = BatchLayout(global_batch=7, replicas=2)
    assert (whole.micro_batch, whole.accumulation, whole.is_padded) == (4, 1, False)
    assert dataclasses.replace(whole, static_shapes=True).is_padded
    with pytest.raises(ConfigurationError, match="LARGEST_MICRO_BATCH = 0"):
        BatchLayout(global_batch=7, replicas=2, largest_micro_batch=0)


def test_actions_fire_when_a_multiple_is_crossed():
    action = PeriodicAction(10, lambda: None)
    fired = [
        after
        for before, after in zip(range(0, 42, 3), range(3, 45, 3), strict=True)
        if action.is_due(before, after, 42)
    ]
    assert fired == [12, 21, 30, 42]  # 42: the end
    assert [e for e in range(3, 45, 3) if PeriodicAction(0, print).is_due(e - 3, e, 42)] == [42]


def test_steps_run_up_to_the_next_event_and_no_further():
    rng = np.random.default_rng(0)
    for _ in range(200):
        every, batch, total = (int(rng.integers(1, 30)) for _ in range(3))
        examples = int(rng.integers(0, total))
        boundary = examples + int(rng.integers(1, 30)) if rng.random() < 0.5 else None
        action = PeriodicAction(every, print)
        steps = steps_until_next(
            [action], examples=examples, total=total, boundary=boundary, global_batch=batch
        )
        positions = [examples + batch * k for k in range(steps + 1)]
        events = [
            action.is_due(before, after, total) or (boundary is not None and after >= boundary)
            for before, after in zip(positions, positions[1:], strict=False)
        ]
        assert events[-1] and not any(events[:-1])
