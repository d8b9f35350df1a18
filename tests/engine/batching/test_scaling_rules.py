"""What a larger batch does to the hyper-parameters: numbers by hand, invariances, refusals, warm-up."""

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling, WarmupState
from engine.errors import ConfigurationError
from engine.schedules import ReduceOnPlateau, StepDecay
from engine.task import Adam

ADAM = Adam(learning_rate=0.01, beta1=0.9, beta2=0.99, epsilon=1e-4, weight_decay=0.5)


def scaled(scaling, settings=ADAM, *, global_batch, examples=0, growth=None, plateau_factor=1.0):
    result = scaling.hyperparameters(
        settings,
        examples=tf.constant(examples, tf.int64),
        global_batch=tf.constant(global_batch, tf.int32),
        growth=tf.constant(global_batch / scaling.first_batch if growth is None else growth, tf.float64),
        plateau_factor=tf.constant(plateau_factor, tf.float64),
    )
    assert all(value.dtype == tf.float64 and value.shape == () for value in result)
    return type(result)(*(float(value) for value in result))


@pytest.mark.parametrize(
    "rule, by_hand",  # learning rate, beta1, beta2, epsilon, weight decay; batch 2 -> 8, so k = 4
    [
        ("none", (0.01, 0.9, 0.99, 1e-4, 0.5)),
        ("linear", (0.04, 0.9, 0.99, 1e-4, 0.5)),
        ("square_root", (0.02, 0.6, 0.96, 5e-5, 0.5)),
        ("square_root_beta1_kept", (0.02, 0.9, 0.96, 5e-5, 0.5)),
    ],
)
def test_rules_by_hand(rule, by_hand):
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule=rule)
    assert scaled(scaling, global_batch=8)[:5] == pytest.approx(by_hand, rel=1e-12)
    # The first batch takes the settings as they are, to the last bit but those of 1 - (1 - beta).
    assert scaled(scaling, global_batch=2)[:5] == pytest.approx((0.01, 0.9, 0.99, 1e-4, 0.5), rel=1e-15)


@pytest.mark.parametrize(
    "rule, decay", [("none", 2.0), ("linear", 0.5), ("square_root", 1.0), ("square_root_beta1_kept", 1.0)]
)
def test_weight_decay_an_example_can_be_kept(rule, decay):
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule=rule, scale_weight_decay=True)
    first, grown = scaled(scaling, global_batch=2), scaled(scaling, global_batch=8)
    assert grown.weight_decay == pytest.approx(decay, rel=1e-12)
    # Learning rate * decay is what a step takes off; a step of the larger batch draws 4 times as many.
    assert grown.learning_rate * grown.weight_decay / 8 == pytest.approx(
        first.learning_rate * first.weight_decay / 2, rel=1e-12
    )
    # It belongs to the batch: a warm-up of the learning rate leaves it alone.
    assert scaled(scaling, global_batch=8, growth=1.5).weight_decay == grown.weight_decay


def half_life_examples(beta, batch):
    return batch * math.log(0.5) / math.log(beta)


@pytest.mark.parametrize("batch", [16, 32, 64])
def test_square_root_keeps_what_the_equation_of_adam_depends_on(batch):
    """With time counted as steps * rate^2, Malladi et al. keep noise * rate and (1 - beta) / rate^2."""
    settings = Adam(learning_rate=0.01, beta1=0.99, beta2=0.999, epsilon=1e-6)
    scaling = BatchScaling(examples_per_epoch=10, first_batch=8, rule="square_root")
    first, grown = scaled(scaling, settings, global_batch=8), scaled(scaling, settings, global_batch=batch)
    for field in ("beta1", "beta2"):
        old, new = getattr(first, field), getattr(grown, field)
        assert (1 - new) / grown.learning_rate**2 == pytest.approx((1 - old) / first.learning_rate**2)
        # To first order in 1 - beta this is beta^k: the moments forget at the same pace in examples.
        assert new == pytest.approx(old ** (batch / 8), abs=((batch / 8) * (1 - old)) ** 2)
        assert half_life_examples(new, batch) == pytest.approx(half_life_examples(old, 8), rel=0.05)
    # Gradient noise falls as 1 / sqrt(batch), and epsilon with it; noise times rate stays.
    assert grown.epsilon * math.sqrt(batch) == pytest.approx(first.epsilon * math.sqrt(8))
    assert grown.learning_rate / math.sqrt(batch) == pytest.approx(first.learning_rate / math.sqrt(8))


def test_beta1_kept_averages_over_k_times_as_many_examples():
    scaling = BatchScaling(examples_per_epoch=10, first_batch=1, rule="square_root_beta1_kept")
    settings = Adam(beta1=0.5, beta2=0.999)
    grown = scaled(scaling, settings, global_batch=4)
    assert half_life_examples(grown.beta1, 4) == 4 * half_life_examples(0.5, 1)
    assert half_life_examples(grown.beta2, 4) == pytest.approx(half_life_examples(0.999, 1), rel=0.01)


def refusal(rule, optimizers, entries, first_batch=1):
    scaling = BatchScaling(examples_per_epoch=10, first_batch=first_batch, rule=rule)
    with pytest.raises(ConfigurationError) as caught:
        scaling.check(optimizers, entries)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_beta_below_zero_is_refused_and_the_entry_quoted():
    optimizers = {"steady": Adam(beta1=0.9), "discriminator": Adam(beta1=0.5)}
    entries = {2: "0:2", 4: "2000:4", 8: "4000:8"}
    message = refusal("square_root", optimizers, entries, first_batch=2)
    for part in (
        "'4000:8'",
        "'discriminator'",
        "beta1 = 1 - 4 * (1 - 0.5) = -1, below 0",
        "'square_root_beta1_kept'",
        "a batch of at most 4,",
        "beta1 of at least 0.75",
    ):
        assert part in message
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule="square_root")
    scaling.check(optimizers, {2: "0:2", 4: "2000:4", 1: "5000:1"})
    for rule in ("none", "linear", "square_root_beta1_kept"):
        BatchScaling(examples_per_epoch=10, first_batch=2, rule=rule).check(optimizers, entries)
    # What the message advises is accepted.
    scaling.check({"discriminator": Adam(beta1=0.75)}, entries)


def test_the_advice_holds_where_its_numbers_have_no_end():
    message = refusal("square_root", {"a": Adam(beta1=0.5)}, {6: "9:6"})
    advised = float(message.rpartition(" ")[2])
    assert 5 / 6 <= advised < 5 / 6 + 1e-3
    BatchScaling(examples_per_epoch=9, first_batch=1, rule="square_root").check(
        {"a": Adam(beta1=advised)}, {6: "9:6"}
    )


def test_beta2_is_refused_under_both_square_root_rules():
    optimizers = {"wide": Adam(beta1=0.9, beta2=0.8)}
    for rule in ("square_root", "square_root_beta1_kept"):
        message = refusal(rule, optimizers, {8: "4000:8"})
        assert "beta2 = 1 - 8 * (1 - 0.8) = -0.6" in message and "'linear'" in message
        assert "a batch of at most 5," in message and "beta2 of at least 0.875" in message


def test_the_limit_itself_gives_zero_not_a_rounding_error():
    # 1 - 10 / 3 * (1 - 0.7) is -2e-16 in floating point.
    scaling = BatchScaling(examples_per_epoch=10, first_batch=3, rule="square_root")
    settings = Adam(beta1=0.7, beta2=0.999)
    scaling.check({"a": settings}, {10: "1:10"})
    assert 1.0 - 10 / 3 * (1.0 - 0.7) < 0
    assert scaled(scaling, settings, global_batch=10).beta1 == 0.0


@pytest.mark.parametrize("rule", ["sqrt", "", "Linear"])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ConfigurationError) as caught:
        BatchScaling(examples_per_epoch=10, first_batch=1, rule=rule)
    rules = "none, linear, square_root, square_root_beta1_kept"
    assert str(caught.value) == f"LEARNING_RATE_RULE = {rule!r}: unknown; use one of {rules}"


def test_negative_warm_up_is_refused():
    with pytest.raises(ConfigurationError, match="BatchScaling.warmup_examples = -1: must be at least 0"):
        BatchScaling(examples_per_epoch=10, first_batch=1, warmup_examples=-1)


def test_warm_up_is_linear_from_the_growth_before_to_the_new_one():
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule="square_root", warmup_examples=100)
    by_hand = {400: 1.0, 425: 1.75, 450: 2.5, 499: 3.97, 500: 4.0, 10_000: 4.0}
    for examples, expected in by_hand.items():
        host = scaling.growth(examples=examples, global_batch=8, warmup=WarmupState(1.0, 400))
        tensors = scaling.growth(
            examples=tf.constant(examples, tf.int64),
            global_batch=tf.constant(8),
            warmup=WarmupState(tf.constant(1.0, tf.float64), tf.constant(400, tf.int64)),
        )
        assert float(host) == pytest.approx(expected, rel=1e-14)
        assert host.dtype == tensors.dtype == tf.float64 and float(host) == float(tensors)
        rate = scaled(scaling, global_batch=8, growth=float(host)).learning_rate
        assert rate == pytest.approx(0.01 * math.sqrt(expected), rel=1e-12)
    # Betas and epsilon belong to the batch, warmed up or not.
    start, end = (scaled(scaling, global_batch=8, growth=growth) for growth in (1.0, 4.0))
    assert start[1:] == end[1:] and start.beta1 == pytest.approx(0.6)


def test_a_second_growth_goes_on_from_where_the_first_warm_up_had_come():
    scaling = BatchScaling(examples_per_epoch=10, first_batch=1, rule="linear", warmup_examples=100)
    first = WarmupState(previous_growth=1.0, changed_at_examples=1000)
    reached = float(scaling.growth(examples=1050, global_batch=3, warmup=first))
    assert reached == pytest.approx(2.0)
    second = WarmupState(previous_growth=reached, changed_at_examples=1050)
    values = [
        float(scaling.growth(examples=e, global_batch=6, warmup=second)) for e in (1050, 1075, 1150, 1151)
    ]
    assert values == pytest.approx([2.0, 3.0, 6.0, 6.0])
    # A batch that shrinks below the growth reached is followed at once, one above it is warmed up to.
    shrunk = [float(scaling.growth(examples=e, global_batch=1, warmup=second)) for e in (1050, 1150)]
    assert shrunk == [1.0, 1.0]
    with_tensors = tf.function(scaling.growth, autograph=False)(
        examples=tf.constant(1075, tf.int64), global_batch=tf.constant(6), warmup=second
    )
    assert float(with_tensors) == values[1]


def test_without_warm_up_and_before_the_first_change_growth_is_k():
    at_once = BatchScaling(examples_per_epoch=10, first_batch=2, rule="linear")
    assert float(at_once.growth(examples=7, global_batch=6, warmup=WarmupState(1.0, 7))) == 3.0
    slow = BatchScaling(examples_per_epoch=10, first_batch=2, rule="linear", warmup_examples=50)
    assert float(slow.growth(examples=0, global_batch=2, warmup=WarmupState())) == 1.0
    # Positions that float32 and int32 cannot hold.
    late = dict(global_batch=4, warmup=WarmupState(1.0, 5_000_000_000))
    assert float(slow.growth(examples=5_000_000_025, **late)) == 1.5


def test_schedules_multiply_the_learning_rate_only():
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule="square_root")
    plain = scaled(scaling, global_batch=8, examples=25)

    def with_schedule(schedule, **position):
        settings = Adam(
            learning_rate=0.01, beta1=0.9, beta2=0.99, epsilon=1e-4, weight_decay=0.5, schedule=schedule
        )
        return scaled(scaling, settings, global_batch=8, **position)

    # Of a schedule that follows the position the plateau's factor is not asked, and the other way round.
    step = with_schedule(StepDecay(every="1ep", factor=0.5), examples=25, plateau_factor=0.3)
    plateau = with_schedule(ReduceOnPlateau(), examples=25, plateau_factor=0.3)
    assert step.learning_rate == pytest.approx(0.005, rel=1e-12)
    assert plateau.learning_rate == pytest.approx(0.006, rel=1e-12)
    assert scaled(scaling, global_batch=8, plateau_factor=0.3).learning_rate == plain.learning_rate
    assert plain[1:] == step[1:] == plateau[1:]


def test_ema_decay_remembers_the_same_number_of_examples():
    kept = BatchScaling(examples_per_epoch=10, first_batch=2)
    assert float(kept.ema_decay(0.999, tf.constant(8))) == 0.999
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, scale_ema_decay=True)
    decay = scaling.ema_decay(0.999, tf.constant(8))
    assert decay.dtype == tf.float64
    assert float(decay) == pytest.approx(0.999**4, rel=1e-14)
    # One update of the larger batch moves the average as four towards the same weights do.
    average, weights = 3.0, 1.0
    for _ in range(4):
        average = 0.999 * average + 0.001 * weights
    assert float(decay) * 3.0 + (1 - float(decay)) * weights == pytest.approx(average, rel=1e-12)
    smaller = float(scaling.ema_decay(0.25, 1))
    np.testing.assert_allclose(smaller, 0.5, rtol=1e-14)


def test_the_first_warm_up_is_linear_in_the_examples_drawn_after_each_step():
    settings = Adam(learning_rate=0.5)
    scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule="linear", first_warmup_examples=10)

    def rate(examples, batch):
        growth = scaling.growth(examples=examples, global_batch=batch, warmup=WarmupState())
        found = scaling.hyperparameters(
            settings,
            examples=tf.constant(examples, tf.int64),
            global_batch=tf.constant(batch),
            growth=growth,
            plateau_factor=tf.constant(1.0, tf.float64),
        )
        return float(found.learning_rate)

    # 5 steps of 2: torch.optim.lr_scheduler.LinearLR(start_factor=1 / 5, total_iters=4).
    linear = [0.5 * (1 / 5 + (1 - 1 / 5) * min(step, 4) / 4) for step in range(7)]
    assert [rate(2 * step, 2) for step in range(7)] == pytest.approx(linear, rel=1e-12)
    # A batch that grows meanwhile: both factors.
    assert [rate(2, 4), rate(6, 8)] == pytest.approx([0.5 * 2 * 0.6, 0.5 * 4], rel=1e-12)


def test_a_negative_first_warm_up_is_refused():
    with pytest.raises(ConfigurationError, match="first_warmup_examples = -1"):
        BatchScaling(examples_per_epoch=10, first_batch=1, first_warmup_examples=-1)
