"""Learning-rate schedules and the plateau detector, against closed forms and hand-made sequences."""

import math

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.plateau import PlateauDetector
from engine.errors import ConfigurationError
from engine.gin_config.validation import _fits, _hints
from engine.optimizers import Adam, MetricSchedule
from engine.schedules import Cosine, LinearDecay, OneCycle, ReduceOnPlateau, StepDecay


def factor(schedule, examples, examples_per_epoch=10):
    value = schedule(tf.constant(examples, tf.float64), examples_per_epoch)
    assert value.dtype == tf.float64 and value.shape == ()
    return float(value)


@pytest.mark.parametrize(
    "convention, published",
    [
        ("end_of_epoch", {99: 1.0, 100: 1.0, 101: 0.990099, 150: 0.504950, 200: 0.009901}),
        ("start_of_epoch", {99: 1.0, 100: 0.990099, 101: 0.980198, 150: 0.495050, 200: 0.0}),
    ],
)
def test_linear_decay_has_both_published_conventions(convention, published):
    schedule = LinearDecay(constant="100ep", decay="100ep", convention=convention)
    for epoch, value in published.items():  # epochs counted from 1
        for within in (0, 399):
            assert factor(schedule, (epoch - 1) * 400 + within, 400) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("convention", ["end_of_epoch", "start_of_epoch"])
@pytest.mark.parametrize(
    ("constant", "decay", "total"), [(100, 100, 200), (200, 200, 400), (150, 50, 200), (3, 7, 10)]
)
def test_parts_of_the_run_are_the_same_bits_as_the_epochs_that_they_are(constant, decay, total, convention):
    absolute = LinearDecay(constant=f"{constant}ep", decay=f"{decay}ep", convention=convention)
    parts = {"constant": f"{100 * constant / total:g}%", "decay": f"{100 * decay / total:g}%"}
    relative = LinearDecay(**parts, convention=convention)
    for per_epoch in (1, 7, 399, 400, 10_007):
        run = relative.for_run(total_examples=total * per_epoch, examples_per_epoch=per_epoch)
        positions = [n * per_epoch + within for n in range(total + 3) for within in {0, per_epoch - 1}]
        of_run, expected = (
            each(tf.constant(positions, tf.float64), per_epoch).numpy() for each in (run, absolute)
        )
        assert of_run.tobytes() == expected.tobytes()


def test_parts_of_the_run_are_whole_epochs_in_linear_decay():
    half = LinearDecay(constant="50%", decay="50%")
    for total, by_epoch in {
        3: [1.0],  # less than an epoch: as it was set
        10: [1.0],
        20: [1.0, 1 / 2],
        30: [1.0, 1.0, 2 / 3],
        45: [1.0, 1.0, 1.0, 3 / 4, 2 / 4],
    }.items():
        run = half.for_run(total_examples=total, examples_per_epoch=10)
        assert [factor(run, 10 * n) for n in range(len(by_epoch))] == pytest.approx(by_epoch, rel=1e-15)


def test_parts_of_the_run_of_the_other_schedules():
    cosine = Cosine(duration="75%", constant="12.5%", final_fraction=0.2)
    assert cosine.for_run(total_examples=80, examples_per_epoch=9) == Cosine(
        duration=60, constant=10, final_fraction=0.2
    )
    assert StepDecay(every="25%").for_run(total_examples=82, examples_per_epoch=9) == StepDecay(every=20)
    absolute = StepDecay(every="3ep")
    assert absolute.for_run(total_examples=1, examples_per_epoch=9) is absolute
    with pytest.raises(ConfigurationError, match="StepDecay.every = '25%': shorter than one example; make"):
        StepDecay(every="25%").for_run(total_examples=1, examples_per_epoch=9)
    with pytest.raises(ConfigurationError, match="Cosine.constant = '12.5%': a part of a run whose length"):
        factor(cosine, 3)


def test_step_decay_falls_where_a_multiple_is_reached():
    schedule = StepDecay(every="3ep", factor=0.5)  # 30 examples
    expected = {0: 1, 29: 1, 30: 0.5, 59: 0.5, 60: 0.25, 95: 0.125}
    assert {e: factor(schedule, e) for e in expected} == expected
    assert factor(StepDecay(every=7), 15) == pytest.approx(0.01, rel=1e-15)


def test_cosine_falls_between_its_ends_and_moves_with_every_example():
    schedule = Cosine(duration="4ep", final_fraction=0.2, constant=5)
    for examples in range(0, 60):
        t = min(max((examples - 5) / 40, 0.0), 1.0)
        assert factor(schedule, examples) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * t)), rel=1e-14)
    by_hand = {5: 1.0, 15: 0.6 + 0.4 * math.sqrt(0.5), 25: 0.6, 45: 0.2, 10_000: 0.2}
    for examples, value in by_hand.items():
        assert factor(schedule, examples) == pytest.approx(value, rel=1e-14)
    assert factor(Cosine(duration=40), 40) == pytest.approx(0.0, abs=1e-15)


def one_cycle_of_pytorch(steps, *, pct_start=0.3, div_factor=25.0, final_div_factor=1e4):
    """Factors of torch.optim.lr_scheduler.OneCycleLR (max_lr = 1, anneal_strategy "cos"), by its formula."""
    peak, last = float(pct_start * steps) - 1, steps - 1
    initial = 1 / div_factor
    lowest = initial / final_div_factor

    def cosine(start, end, part):
        return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)

    return [
        cosine(initial, 1.0, step / peak)
        if step <= peak
        else cosine(1.0, lowest, (step - peak) / (last - peak))
        for step in range(steps)
    ]


@pytest.mark.parametrize("batch, steps", [(1, 10), (4, 50), (3, 40)])
def test_one_cycle_is_that_of_pytorch_at_every_step(batch, steps):
    schedule = OneCycle().for_run(total_examples=batch * steps, examples_per_epoch=10)
    size = tf.constant(batch, tf.float64)
    found = [
        float(schedule.factor_of_step(tf.constant(batch * s, tf.float64), 10, size)) for s in range(steps)
    ]
    np.testing.assert_allclose(found, one_cycle_of_pytorch(steps), rtol=1e-12)
    assert found[0] == pytest.approx(0.04) and found[-1] == pytest.approx(4e-6)
    assert max(found) == pytest.approx(1.0)


def test_one_cycle_while_the_batch_grows_follows_the_position():
    schedule = OneCycle(rise=12, duration=36, start_fraction=0.5, final_fraction=0.0)
    steps = [(0, 2), (10, 2), (4, 8), (12, 12), (24, 12), (30, 12), (40, 12)]  # examples before, batch
    assert [factor(schedule, e) for e in (0, 12, 24, 36)] == pytest.approx([0.5, 1, 0.5, 0])  # tiny batches
    found = [
        float(schedule.factor_of_step(tf.constant(e, tf.float64), 10, tf.constant(b, tf.float64)))
        for e, b in steps
    ]
    # Starts low; ends at the peak, twice; halfway down; down, also beyond the end.
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0], abs=1e-12)


def test_one_cycle_that_only_rises_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"rise = '5ep' \(50 examples\) is not shorter than .*\(40\)"
    ):
        OneCycle(rise="5ep").for_run(total_examples=40, examples_per_epoch=10)
    with pytest.raises(ConfigurationError, match="start_fraction = 0 must lie in"):
        OneCycle(start_fraction=0)


def test_positions_beyond_float32_are_told_apart():
    # 2**25 examples in float32 would not change by one more.
    assert factor(StepDecay(every=2**25 + 1, factor=0.5), 2**25) == 1.0
    assert factor(StepDecay(every=2**25 + 1, factor=0.5), 2**25 + 1) == 0.5


@pytest.mark.parametrize("schedule", [StepDecay(every="0.5ep"), Cosine(duration="0.5ep"), LinearDecay()])
def test_schedules_run_inside_a_compiled_function(schedule):
    compiled = tf.function(lambda examples: schedule(examples, 10), autograph=False)
    for examples in (0.0, 3.0, 17.0):
        value = float(compiled(tf.constant(examples, tf.float64)))
        assert value == pytest.approx(factor(schedule, examples), rel=1e-14)


def fired(detector, values):
    state, at = detector.initial(), []
    for index, value in enumerate(values):
        state, plateaued = detector.observe(state, {detector.metric: value, "other": 0.0})
        if plateaued:
            assert state["waited"] == 0.0
            at.append(index)
    return at, state


@pytest.mark.parametrize(
    "settings, values, expected",
    [
        # The first evaluation counts as the best, then patience + 1 are needed.
        (dict(patience=2), [1, 1, 1, 1, 1, 1, 1], [3, 6]),
        (dict(patience=0), [1, 2, 2, 3, 1], [2, 4]),
        (dict(patience=1), [5, 4, 6, 5, 5], [4]),
        (dict(metric="mae", patience=1), [5, 6, 4, 5, 5], [4]),
        (dict(metric="mae", patience=0), [5, 4, 3, 2, 1], []),
        # An improvement by exactly the minimum does not count, and the best stays the old one.
        (dict(patience=0, minimum_change=0.5), [1, 1.5, 1.75, 2.25], [1, 3]),
        (dict(patience=0, minimum_change=0.5), [1, 1.25, 1.625], [1]),
        (dict(patience=0), [math.nan, 1, math.nan, 2], [0, 2]),
        (dict(patience=0), [math.inf, math.inf], [1]),
    ],
)
def test_plateaus_by_hand(settings, values, expected):
    assert fired(PlateauDetector(**settings), values)[0] == expected


def test_plateaus_are_those_of_pytorch():
    """The algorithm of torch.optim.lr_scheduler.ReduceLROnPlateau, threshold_mode="abs", written again."""
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(50):
        patience, threshold = int(rng.integers(0, 4)), float(rng.choice([0.0, 0.25]))
        values = np.round(rng.normal(size=30), 1)
        best, bad, expected = math.inf, 0, []
        for index, value in enumerate(values):
            best, bad = (value, 0) if value < best - threshold else (best, bad + 1)
            if bad > patience:
                expected.append(index)
                bad = 0
        detector = PlateauDetector(metric="rmse", patience=patience, minimum_change=threshold)
        at, state = fired(detector, values)
        assert at == expected and state == {"best": best, "waited": bad}
        total += len(at)
    assert total > 100


def test_the_detector_leaves_the_given_state_alone_and_keeps_none():
    detector = PlateauDetector(patience=1)
    state, _ = detector.observe(detector.initial(), {"psnr_db": 3.0})
    again = [detector.observe(state, {"psnr_db": 2.0}) for _ in range(3)]
    assert again == [({"best": 3.0, "waited": 1.0}, False)] * 3
    assert state == {"best": 3.0, "waited": 0.0}


def test_reduce_on_plateau_multiplies_down_to_its_floor():
    schedule = ReduceOnPlateau(metric="ssim", patience=1, factor=0.5, floor=0.2)
    state, factors = schedule.initial(), []
    assert state.keys() == {"factor", "best", "waited"} and state["factor"] == 1.0
    for value in [0.5, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7]:
        state = schedule.observe(state, {"ssim": value})
        factors.append(state["factor"])
    assert factors == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]
    assert state == {"factor": 0.2, "best": 0.7, "waited": 0.0}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: StepDecay(every=0), "StepDecay.every = 0: shorter than one example"),
        (lambda: StepDecay(every="0ep"), "StepDecay.every = '0ep': shorter"),
        (lambda: StepDecay(every="soon"), "StepDecay.every = 'soon': not a length"),
        (lambda: StepDecay(every="0%"), "StepDecay.every = '0%': shorter"),
        (lambda: StepDecay(every="-5%"), "StepDecay.every = '-5%': not a length"),
        (lambda: LinearDecay(decay="half"), "LinearDecay.decay = 'half': not a length of training; write"),
        (lambda: StepDecay(every=1, factor=1.5), "StepDecay.factor = 1.5: must lie"),
        (lambda: Cosine(duration=0), "Cosine.duration = 0: shorter"),
        (lambda: Cosine(duration=9, constant=-1), "Cosine.constant = -1: not a length"),
        (lambda: Cosine(duration=9, final_fraction=1.1), "Cosine.final_fraction = 1.1: must lie"),
        (lambda: ReduceOnPlateau(factor=0.0), "ReduceOnPlateau.factor = 0.0: must lie"),
        (lambda: ReduceOnPlateau(floor=-0.1), "ReduceOnPlateau.floor = -0.1: must lie"),
        (lambda: ReduceOnPlateau(patience=-1), "ReduceOnPlateau.patience = -1: must be at least 0"),
        (lambda: ReduceOnPlateau(minimum_change=math.nan), "ReduceOnPlateau.minimum_change = nan: must"),
        (lambda: ReduceOnPlateau(metric="psnr"), "ReduceOnPlateau.metric = 'psnr': unknown; use one of mae"),
        (lambda: PlateauDetector(metric="x", patience=1), "PlateauDetector.metric = 'x': unknown"),
        (lambda: Adam(weight_decay=-0.1), "Adam.weight_decay = -0.1: must be at least 0"),
        (lambda: Adam(weight_decay=math.nan), "Adam.weight_decay = nan: must be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_construction(make, message):
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert ";" in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_of_an_epoch_below_one_example_is_refused_where_the_epoch_is_known():
    schedule = StepDecay(every="0.01ep")
    assert factor(schedule, 2, examples_per_epoch=100) == pytest.approx(0.01)
    with pytest.raises(ConfigurationError, match="StepDecay.every = '0.01ep': shorter than one example"):
        factor(schedule, 2, examples_per_epoch=10)


def test_a_configuration_may_name_either_kind_of_schedule_and_no_plain_value():
    hint = _hints(Adam)["schedule"]
    for schedule in (None, StepDecay(every=1), ReduceOnPlateau()):
        assert _fits(schedule, hint)
    assert not any(_fits(value, hint) for value in (3, "cosine", 0.5, (1, 2)))
    assert isinstance(ReduceOnPlateau(), MetricSchedule)
    assert not isinstance(StepDecay(every=1), MetricSchedule)
