"""Batch schedules by hand: positions, ladders, decisions, refusals, and the gin files that use them."""

import dataclasses
import glob
import math
import os

import pytest
import tensorflow as tf

from engine.adaptive_batch import DecayAfterGrowth, GrowByNoiseScale, GrowOnPlateau
from engine.batch_schedules import Geometric, resolve_batch_schedule
from engine.batching.noise_scale import NoiseScaleValue
from engine.errors import ConfigurationError
from engine.gin_config import diff, loader
from engine.gin_config.free_settings import free_to_change
from engine.optimizers import MetricSchedule
from engine.outer_loop.run_plan import plan_run
from engine.schedules import StepDecay


def sizes_of_a_run(schedule, total):
    """The global batch of every step; each step starts where the one before ended."""
    sizes, examples = [], 0
    while examples < total:
        sizes.append(schedule.batch(examples, schedule.initial_state()))
        examples += sizes[-1]
    return sizes


def test_a_step_takes_the_piece_in_which_it_starts():
    schedule = resolve_batch_schedule("0:1, 4:2, 1ep:8", examples_per_epoch=12)
    assert sizes_of_a_run(schedule, 30) == [1, 1, 1, 1, 2, 2, 2, 2, 8, 8, 8]
    assert [schedule.next_start(e) for e in (0, 3, 4, 12)] == [4, 4, 12, None]
    assert schedule.entry(8) == "1ep:8"
    assert schedule.initial_state() == {} and schedule.decide_every_examples == 0


def test_pieces_may_shrink_and_be_passed_over():
    schedule = resolve_batch_schedule("0:1, 4:7, 6:2, 12:4, 13:1", examples_per_epoch=12)
    assert sizes_of_a_run(schedule, 17) == [1, 1, 1, 1, 7, 2, 1, 1, 1, 1]
    assert schedule.pieces == ((0, 1), (4, 7), (6, 2), (12, 4), (13, 1))
    assert schedule.sizes == (1, 7, 2, 4)  # each once
    assert schedule.entry(1) == "0:1"


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_batches_per_replica(replicas):
    schedule = resolve_batch_schedule("8 per replica", examples_per_epoch=24, replicas=replicas)
    assert schedule.pieces == ((0, 8 * replicas),) and schedule.replicas == replicas
    assert schedule.entry(8 * replicas) == "8 per replica"
    mixed = "0:1 per replica, 1ep:4, 2ep:8  per replica"
    schedule = resolve_batch_schedule(mixed, examples_per_epoch=24, replicas=replicas)
    assert schedule.pieces == ((0, replicas), (24, 4), (48, 8 * replicas)) and schedule.replicas == replicas
    assert resolve_batch_schedule("0:1, 4:2", examples_per_epoch=24, replicas=replicas).replicas is None


@pytest.mark.parametrize("text", ["8 per", "8 per gpu", "per replica", "0 per replica", "0:8per replica"])
def test_what_is_not_per_replica_is_refused(text):
    with pytest.raises(ConfigurationError, match="BATCH_SCHEDULE: .*'8 per replica'"):
        resolve_batch_schedule(text, examples_per_epoch=100, replicas=2)


def test_a_batch_per_replica_that_exceeds_the_data_is_refused():
    with pytest.raises(
        ConfigurationError, match="'8 per replica', a global batch of 24 on 3 replicas, is more"
    ):
        resolve_batch_schedule("8 per replica", examples_per_epoch=23, replicas=3)


@pytest.mark.parametrize("setting", [4, "4", " 4 ", "0:4"])
def test_constants(setting):
    schedule = resolve_batch_schedule(setting, examples_per_epoch=4)
    assert schedule.pieces == ((0, 4),) and schedule.sizes == (4,)
    assert schedule.entry(4) == str(setting).strip()
    assert schedule.next_start(0) is None


@pytest.mark.parametrize(
    "text, entry",
    [
        ("0:1, 40:2, 30:4", "30:4"),
        ("0:1, 40:2, 40:4", "40:4"),
        ("0:1, 40:0", "40:0"),
        ("0:1, 40:-2", "40:-2"),
        ("0:1, 40:²", "40:²"),
        ("5:1", "5:1"),
        ("0:1, 4000", "4000"),
        ("0:1, 3days:2", "3days:2"),
        ("0:101", "0:101"),
        ("four", "four"),
        ("", ""),
        (0, "0"),
        (True, "True"),
    ],
)
def test_bad_entries_are_quoted(text, entry):
    with pytest.raises(ConfigurationError, match="BATCH_SCHEDULE.*;") as caught:
        resolve_batch_schedule(text, examples_per_epoch=100)
    assert repr(entry) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, pieces",
    [
        (dict(start=4, factor=2, every=100, maximum=20), ((0, 4), (100, 8), (200, 16), (300, 20))),
        # 1, 1.5, 2.25, 3.375: twice 2, which lasts twice as long.
        (dict(start=1, factor=1.5, every="1ep", maximum=4), ((0, 1), (50, 2), (150, 3), (200, 4))),
        (dict(start=3, factor=1e300, every=10, maximum=5), ((0, 3), (10, 5))),
        (dict(start=3, every=10, maximum=3), ((0, 3),)),
    ],
)
def test_geometric_growth_is_a_function_of_position(settings, pieces):
    schedule = resolve_batch_schedule(Geometric(**settings), examples_per_epoch=50)
    assert schedule.pieces == pieces
    assert schedule.sizes == tuple(size for _, size in pieces)
    for start, size in pieces:
        assert schedule.batch(start, {}) == size
        assert size == pieces[0][1] or schedule.batch(start - 1, {}) < size


def test_entries_of_rungs_name_the_setting():
    for settings in (
        Geometric(start=4, every="1ep", maximum=32),
        GrowOnPlateau(start=4, maximum=32, patience=1),
        GrowByNoiseScale(start=4, maximum=32, phase="g", every=1),
    ):
        entry = settings.resolve(32).entry(16)
        assert entry == f"{type(settings).__name__}(start=4, factor=2.0, maximum=32) rung 16"


def test_a_plateau_moves_one_rung_up():
    schedule = GrowOnPlateau(
        start=2, factor=3, maximum=12, metric="mae", patience=1, minimum_change=0.5
    ).resolve(100)
    assert schedule.sizes == (2, 6, 12) and schedule.pieces == ((0, 2), (None, 6), (None, 12))
    state, sizes = schedule.initial_state(), []
    assert set(state) == {"rung", "best", "waited"} and all(type(x) is float for x in state.values())
    #            best  best  wait  fires wait  best  wait  fires wait  fires: no rung is left
    for mae in (10.0, 9.0, 8.8, 8.6, 8.7, 8.0, 9.0, 9.0, 9.0, 9.0):
        new = schedule.after_evaluation(state, {"mae": mae, "psnr_db": 3.0})
        assert new is not state
        state = new
        sizes.append(schedule.batch(0, state))
    assert sizes == [2, 2, 2, 6, 6, 6, 6, 12, 12, 12]
    assert schedule.after_noise_scale(state, {}) == state  # only evaluations count


def test_the_learning_rate_falls_on_plateaus_once_the_batch_is_at_its_largest():
    growth = GrowOnPlateau(start=2, factor=3, maximum=12, metric="mae", patience=1, minimum_change=0.5)
    decay = DecayAfterGrowth(growth=growth)
    assert isinstance(decay, MetricSchedule)
    rate, batch = decay.initial(), growth.initial_state()
    seen = []
    #            best wait fires wait fires wait fires best wait fires wait fires
    for mae in (10.0, 9.8, 9.8, 9.8, 9.8, 9.8, 9.8, 8.0, 8.0, 8.0, 8.0, 8.0):
        rate, batch = decay.observe(rate, {"mae": mae}), growth.after_evaluation(batch, {"mae": mae})
        assert rate == batch | {"factor": rate["factor"]}  # one plateau for both
        seen.append((growth.batch(0, batch), rate["factor"]))
    third, ninth = 1 / 3, 1 / 3 / 3
    assert seen == [
        (2, 1), (2, 1), (6, 1), (6, 1), (12, 1), (12, 1), (12, third),
        (12, third), (12, third), (12, ninth), (12, ninth), (12, ninth / 3),
    ]  # fmt: skip


def test_smith_plateau_divides_the_rate_of_every_optimizer_by_the_factor_of_its_batch():
    files, params = (
        ["gin/pix2pix.gin", "gin/schedules/smith_plateau.gin"],
        ["adaptive_batch.GrowOnPlateau.patience = 1"],
    )
    experiment, _ = loader.load_experiment(gin_files=files, gin_params=params)
    for optimizer in experiment.task.optimizers.values():
        assert optimizer.schedule == DecayAfterGrowth(growth=experiment.batch_schedule)
        assert optimizer.schedule.growth.patience == 1  # also of what is overridden


def test_adabatch_multiplies_the_rate_by_three_quarters_at_each_doubling():
    files = ["gin/pix2pix.gin", "gin/schedules/adabatch.gin"]
    experiment, _ = loader.load_experiment(gin_files=files)
    assert experiment.learning_rate_rule == "linear"
    schedule = experiment.batch_schedule.resolve(100)
    for optimizer in experiment.task.optimizers.values():
        decay = optimizer.schedule
        assert decay == StepDecay(every=experiment.batch_schedule.every, factor=0.375)
        for doublings in range(5):  # the published five intervals of a run
            for position in (4000 * doublings, 4000 * doublings + 3999):
                rate = schedule.batch(position, {}) * float(decay(tf.constant(position, tf.float64), 100))
                assert rate == pytest.approx(0.75**doublings)
    other, _ = loader.load_experiment(gin_files=files, gin_params=["GROW_EVERY = '3ep'"])
    assert other.batch_schedule.every == other.task.optimizers["generator"].schedule.every == "3ep"


def scales(noise_scale, norm_test_scale=math.nan, phase="generator"):
    return {
        phase: NoiseScaleValue(
            noise_scale=noise_scale,
            norm_test_scale=norm_test_scale,
            trace_covariance=math.nan,
            square_gradient=math.nan,
        )
    }


def climb(schedule, values):
    state, sizes = schedule.initial_state(), []
    for value in values:
        state = schedule.after_noise_scale(state, value)
        sizes.append(schedule.batch(0, state))
    return sizes


def by_noise(**settings):
    defaults = dict(start=4, factor=2, maximum=24, phase="generator", every="1ep")
    return GrowByNoiseScale(**(defaults | settings)).resolve(30)


def test_the_batch_follows_the_noise_scale_one_rung_at_a_time():
    values = [scales(x) for x in (7.9, 8.0, 100.0, 100.0, 100.0, 9.0)]
    schedule = by_noise()
    assert schedule.decide_every_examples == 30
    assert schedule.sizes == (4, 8, 16, 24)
    assert climb(schedule, values) == [4, 8, 16, 24, 24, 24]
    assert climb(by_noise(monotone=False), [*values, scales(1.0), scales(1.0), scales(1.0)]) == [
        4, 8, 16, 24, 24, 16, 8, 4, 4,
    ]  # fmt: skip
    assert climb(by_noise(target=0.5), values) == [4, 4, 8, 16, 24, 24]
    with pytest.raises(KeyError):
        climb(schedule, [scales(100.0, phase="discriminator")])


def test_what_is_not_known_changes_nothing_and_hidden_gradients_ask_for_more():
    for monotone in (True, False):
        schedule = by_noise(monotone=monotone)
        assert climb(schedule, [scales(x) for x in (9.0, math.nan, 0.0, -3.0, math.inf)]) == [8, 8, 8, 8, 16]
    state = schedule.initial_state()
    assert schedule.after_evaluation(state, {"psnr_db": 1.0}) == state


def test_a_minimum_lets_the_batch_fall_below_its_start():
    schedule = by_noise(start=8, maximum=16, minimum=3, monotone=False)
    assert schedule.sizes == (8, 3, 4, 16) and schedule.batch(0, schedule.initial_state()) == 8
    assert climb(schedule, [scales(x) for x in (0.5, 0.5, 0.5, 4.0, 20.0, 20.0, 20.0)]) == [
        4, 3, 3, 4, 8, 16, 16,
    ]  # fmt: skip


def test_the_norm_test_reads_its_own_scale():
    schedule = by_noise(statistic="norm_test", target=4.0)
    assert climb(schedule, [scales(1000.0, x) for x in (1.9, 2.0, 2.0, 4.1)]) == [4, 8, 8, 16]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(start=0), "start = 0: must be at least 1"),
        (dict(factor=0.5), "factor = 0.5: must be above 1"),
        (dict(factor=math.nan), "factor = nan: must be above 1"),
        (dict(maximum=3), "maximum = 3: must not be below start = 4"),
        (dict(maximum=31), "maximum = 31: more than the 30 training examples"),
        (dict(every="3days"), "every = '3days': not a length of training"),
        (dict(every=0), "every = 0: must be at least one example"),
        (dict(every="0.01ep"), "every = '0.01ep': must be at least one example"),
        (dict(target=0.0), "target = 0.0: must be above 0"),
        (dict(statistic="norm"), "statistic = 'norm': unknown; use 'noise_scale' or"),
        (dict(statistic="norm_test", target=2.0), "target = 2.0: the norm test asks for less than"),
        (dict(minimum=2), "minimum = 2: a monotone batch never falls;"),
        (dict(minimum=5, monotone=False), "minimum = 5: must lie between 1 and start = 4"),
        (dict(minimum=0, monotone=False), "minimum = 0: must lie between 1 and start = 4"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ConfigurationError) as caught:
        by_noise(**change)
    assert f"GrowByNoiseScale.{message}" in str(caught.value)
    assert ";" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_settings_of_the_other_schedules():
    with pytest.raises(ConfigurationError, match="Geometric.every = '0ep': must be at least one"):
        Geometric(start=1, maximum=4, every="0ep")
    with pytest.raises(ConfigurationError, match="GrowOnPlateau.metric = 'psnr': unknown"):
        GrowOnPlateau(start=1, maximum=4, metric="psnr", patience=1)


def test_schedules_that_could_never_decide_are_refused():
    run = dict(phases=("critic", "generator"), evaluate_every=0)
    by_noise().check(**run)
    resolve_batch_schedule(4, examples_per_epoch=4).check(**run)
    with pytest.raises(ConfigurationError, match="phase = 'disc': the task has no such.*critic, generator"):
        by_noise(phase="disc").check(**run)
    plateau = GrowOnPlateau(start=1, maximum=4, patience=1).resolve(4)
    plateau.check(phases=(), evaluate_every=10)
    with pytest.raises(ConfigurationError, match="EVALUATE_EVERY = 0 makes none before the end; set"):
        plateau.check(**run)


SCHEDULES = {
    "adabatch": (1, 2, 4, 8, 16),
    "smith_plateau": (1, 5, 25),
    "noise_scale": (1, 2, 4, 8, 16),
    "norm_test": (1, 2, 4, 8, 16),
    "stepwise": (1, 2, 4, 8),
}


def test_every_gin_schedule_is_tested():
    paths = glob.glob(os.path.join(loader.ROOT, "gin", "schedules", "*.gin"))
    of_learning_rates = {"one_cycle", "reduce_on_plateau"}
    assert {os.path.basename(path)[:-4] for path in paths} - of_learning_rates == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gin_schedules_follow_the_file_of_a_task(name, noise_pairs):
    files = ["gin/pix2pix.gin", f"gin/schedules/{name}.gin"]
    experiment, text = loader.load_experiment(gin_files=files)
    data = noise_pairs(train_examples=400)
    plan = plan_run(
        dataclasses.replace(experiment, data=data), replicas=2, largest_micro_batch=None, static_shapes=False
    )
    assert plan.schedule.sizes == SCHEDULES[name]
    again = loader.load_experiment_text(text, where="config.gin")
    assert again.batch_schedule == experiment.batch_schedule


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"stepwise"}))
def test_settings_of_gin_schedules_are_checked_and_overridden(name):
    files = ["gin/pix2pix.gin", f"gin/schedules/{name}.gin"]
    experiment, text = loader.load_experiment(gin_files=files)
    kind = type(experiment.batch_schedule)
    factor = f"{kind.__module__.removeprefix('engine.')}.{kind.__name__}.factor"
    with pytest.raises(ConfigurationError, match=f"{factor} = 'two': wrong type str; .* takes float"):
        loader.load_experiment(gin_files=files, gin_params=[f"{factor} = 'two'"])
    faster, changed = loader.load_experiment(gin_files=files, gin_params=[f"{factor} = 3.5"])
    assert faster.batch_schedule.factor == 3.5
    (line,) = diff.differences(text, changed, free_to_change=free_to_change(experiment))
    assert line.endswith(f"{factor}: {experiment.batch_schedule.factor} -> 3.5")


def test_a_run_that_goes_on_with_a_shorter_ladder_takes_its_last_rung():
    long, short = (GrowOnPlateau(start=1, maximum=size, patience=0) for size in (16, 4))
    assert long.batch(0, {"rung": 4.0}) == 16
    assert short.batch(0, {"rung": 4.0}) == 4
