"""Durations, batch schedules, learning rates and the arithmetic of actions, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from engine.actions import Action, steps_until_next
from engine.batch import parse_batch_schedule, plan_batches, rows_of_replicas
from engine.durations import examples_of
from engine.learning_rate import LearningRate
from engine.schedules import LinearDecay
from engine.task import Adam, ConfigurationError


@pytest.mark.parametrize(
    "duration, expected", [(7, 7), ("7", 7), ("7ex", 7), ("3ep", 30), ("0.25ep", 2), (0, 0)]
)
def test_durations(duration, expected):
    assert examples_of(duration, examples_per_epoch=10, name="X") == expected


@pytest.mark.parametrize("duration", ["7 days", "-3", -3, "1.5ex", "", "ep", True, 2.0, None])
def test_durations_that_are_none(duration):
    with pytest.raises(ConfigurationError, match="X = .*not a length of training; write"):
        examples_of(duration, examples_per_epoch=10, name="X")


def test_batch_schedule_takes_the_value_where_a_step_starts():
    schedule = parse_batch_schedule("0:1, 4:2, 1ep:8", examples_per_epoch=12)
    sizes, examples = [], 0
    while examples < 30:
        sizes.append(schedule(examples))
        examples += sizes[-1]
    assert sizes == [1, 1, 1, 1, 2, 2, 2, 2, 8, 8, 8]
    assert [schedule.next_start(e) for e in (0, 3, 4, 12)] == [4, 4, 12, None]


@pytest.mark.parametrize(
    "text, entry",
    [
        ("0:1, 40:2, 30:4", "30:4"),
        ("0:1, 40:0", "40:0"),
        ("0:1, 40:-2", "40:-2"),
        ("5:1", "5:1"),
        ("0:1, 4000", "4000"),
        ("0:1, 3days:2", "3days:2"),
        ("0:200", "0:200"),
        ("four", "four"),
        (0, "0"),
    ],
)
def test_bad_batch_schedules_quote_the_entry(text, entry):
    with pytest.raises(ConfigurationError, match="BATCH_SCHEDULE") as caught:
        parse_batch_schedule(text, examples_per_epoch=100)
    assert repr(entry) in str(caught.value)


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


def test_plans_leave_out_what_is_not_reached_and_refuse_uneven_static_shapes():
    schedule = parse_batch_schedule("0:2, 10:7, 50:8", examples_per_epoch=100)
    plans = plan_batches(schedule, replicas=2, total_examples=20, static_shapes=False)
    assert [(p.first_example, p.global_batch, p.per_replica_batch) for p in plans] == [
        (0, 2, 1),
        (10, 7, 4),
    ]
    with pytest.raises(ConfigurationError, match="global batch of 7 does not divide by the 2 TPU"):
        plan_batches(schedule, replicas=2, total_examples=20, static_shapes=True)


@pytest.mark.parametrize(
    "convention, published",
    [
        ("end_of_epoch", {99: 1.0, 100: 1.0, 101: 0.990099, 150: 0.504950, 200: 0.009901}),
        ("start_of_epoch", {99: 1.0, 100: 0.990099, 101: 0.980198, 150: 0.495050, 200: 0.0}),
    ],
)
def test_linear_decay_has_both_published_conventions(convention, published):
    schedule = LinearDecay(constant="100ep", decay="100ep", convention=convention)
    for epoch, factor in published.items():  # epochs counted from 1
        for within in (0, 399):
            examples = tf.constant((epoch - 1) * 400 + within, tf.float64)
            assert float(schedule(examples, 400)) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize("rule, factor", [("none", 1), ("linear", 3), ("square_root", 3**0.5)])
def test_learning_rate_follows_the_batch(rule, factor):
    rate = LearningRate(examples_per_epoch=10, first_batch=2, rule=rule)
    value = rate(Adam(learning_rate=0.01), tf.constant(0, tf.int64), tf.constant(6))
    assert float(value) == pytest.approx(0.01 * factor, rel=1e-12)


def test_actions_fire_when_a_multiple_is_crossed():
    action = Action(10, lambda: None)
    fired = [
        after
        for before, after in zip(range(0, 42, 3), range(3, 45, 3), strict=True)
        if action.is_due(before, after, 42)
    ]
    assert fired == [12, 21, 30, 42]  # 42: the end
    assert [e for e in range(3, 45, 3) if Action(0, print).is_due(e - 3, e, 42)] == [42]


def test_steps_run_up_to_the_next_event_and_no_further():
    rng = np.random.default_rng(0)
    for _ in range(200):
        every, batch, total = (int(rng.integers(1, 30)) for _ in range(3))
        examples = int(rng.integers(0, total))
        boundary = examples + int(rng.integers(1, 30)) if rng.random() < 0.5 else None
        action = Action(every, print)
        steps = steps_until_next(
            [action], examples=examples, total=total, boundary=boundary, global_batch=batch
        )
        positions = [examples + batch * k for k in range(steps + 1)]
        events = [
            action.is_due(before, after, total) or (boundary is not None and after >= boundary)
            for before, after in zip(positions, positions[1:], strict=False)
        ]
        assert events[-1] and not any(events[:-1])
