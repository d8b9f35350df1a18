"""A learning rate that is 0 before the run ends, or that follows the length of the run, is told."""

import numpy as np
import pytest
import tensorflow as tf

from engine.doctor import plan_report
from engine.experiment import Experiment
from engine.gin_config.diff import total_examples
from engine.outer_loop.rate_warnings import changed_rate_lines, find_zero_rates
from engine.outer_loop.run_plan import plan_run
from engine.schedules import Cosine, LinearDecay, ReduceOnPlateau, StepDecay
from engine.storage.run_directory import read_rows
from engine.task import Adam
from engine.train import train
from tests.helpers.runs import stop_at

EPOCH = 12  # examples of NoisePairs


def plan_of(task, data, **settings):
    experiment = Experiment(task=task, data=data, **settings)
    return plan_run(experiment, replicas=1, largest_micro_batch=None, static_shapes=False)


def rises_again(examples, examples_per_epoch):
    """A user's own schedule: 0 in the middle and from 400 on."""
    is_zero = ((examples >= 100) & (examples < 200)) | (examples >= 400)
    return tf.where(is_zero, tf.constant(0.0, tf.float64), tf.constant(1.0, tf.float64))


@pytest.mark.parametrize(
    ("schedule", "total"),
    [
        (LinearDecay(constant="2ep", decay="3ep"), "10ep"),
        (LinearDecay(constant="2ep", decay="3ep"), "5ep"),
        (LinearDecay(constant="2ep", decay="3ep"), "6ep"),
        (LinearDecay(constant="2ep", decay="3ep", convention="start_of_epoch"), "5ep"),
        (LinearDecay(constant="50%", decay="50%"), "10ep"),
        (LinearDecay(constant=0, decay=0), "2ep"),
        (Cosine(duration=100), 701),
        (Cosine(duration=100, final_fraction=0.1), 700),
        (Cosine(duration="100%"), 700),
        (StepDecay(every=10), 5000),
        (StepDecay(every=1), 5000),  # 0.1 ** 324 is 0
        (rises_again, 5000),
        (rises_again, 150),
        (None, 5000),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_zero_is_found_where_a_search_of_every_step_finds_it(
    noise_pairs, small_pix2pix, schedule, total, batch
):
    task = small_pix2pix(generator_optimizer=Adam(schedule=schedule), discriminator_optimizer=Adam())
    plan = plan_of(task, noise_pairs(), total_examples=total, batch_schedule=batch, evaluate_every=1)
    found = find_zero_rates(plan, task)
    made = plan.scaling.position_schedule(task.optimizers["generator"])
    steps = np.arange(0, plan.total_examples, batch)
    factors = [1.0 if made is None else float(made(tf.constant(s, tf.float64), EPOCH)) for s in steps]
    not_zero = np.flatnonzero(factors)
    expected = steps[not_zero[-1] + 1 :] if len(not_zero) else steps
    if not len(expected):
        assert found.starts == {} and found.plan_lines() == []
        return
    assert found.starts.keys() == {"generator"}
    start = found.starts["generator"]
    assert expected[0] - batch < start <= expected[0]
    (line,) = found.plan_lines()
    assert f"of generator is 0 from example {start} (epoch {start / EPOCH:g})" in line
    assert f"ends at {plan.total_examples}" in line and "lower TOTAL_EXAMPLES" in line


def test_a_rate_of_0_and_a_schedule_by_metric_are_not_warned_of(noise_pairs, small_pix2pix):
    task = small_pix2pix(
        generator_optimizer=Adam(learning_rate=0.0, schedule=LinearDecay(constant=1, decay=1)),
        discriminator_optimizer=Adam(schedule=ReduceOnPlateau()),
    )
    plan = plan_of(task, noise_pairs(), total_examples=500, evaluate_every=5)
    assert find_zero_rates(plan, task).starts == {}


def test_phases_of_one_position_share_a_line(noise_pairs, small_pix2pix):
    adam = Adam(schedule=LinearDecay(constant=EPOCH, decay=0))
    task = small_pix2pix(generator_optimizer=adam, discriminator_optimizer=adam)
    found = find_zero_rates(plan_of(task, noise_pairs(), total_examples=50), task)
    (line,) = found.plan_lines()
    assert "of discriminator, generator is 0 from example 12 " in line
    assert found.lines_between(0, 11) == found.lines_between(12, 50) == []
    assert found.lines_between(11, 12) == found.lines_between(0, 50)
    assert found.lines_between(0, 50) == [
        "warning: from here on the learning rate of discriminator, generator is 0"
    ]


def test_training_warns_at_the_start_and_once_when_it_happens(make_trainer, noise_pairs, small_pix2pix):
    adam = Adam(schedule=LinearDecay(constant=EPOCH, decay=0))
    task = small_pix2pix(generator_optimizer=adam, discriminator_optimizer=adam)
    settings = {"total_examples": 20, "batch_schedule": 2, "save_every": 2}
    trainer = make_trainer(task, noise_pairs(size=32), **settings)
    stop_at(trainer, 14)
    with pytest.raises(RuntimeError, match="saved at 14"):
        trainer.run()
    again = make_trainer(task, noise_pairs(size=32), workdir=trainer.run_directory.path, **settings)
    again.restore()
    again.run()
    with open(again.run_directory.console_log) as file:
        lines = file.read().splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    starts = [line for line in warnings if "is 0 from example 12 (epoch 1) on" in line]
    [reached] = [line for line in warnings if "from here on the learning rate of" in line]
    assert len(starts) == 2 and len(warnings) == 3  # a start of the process each
    assert lines[lines.index(reached) + 1].lstrip().startswith("12/20 ex")
    rates = {r["examples"]: r["learning_rate/generator"] for r in read_rows(again.run_directory.train_log)}
    assert rates[12] > 0 and rates[14] == 0 == rates[20]


def test_a_complete_run_is_not_warned(make_trainer, noise_pairs, small_pix2pix):
    adam = Adam(schedule=LinearDecay(constant=EPOCH, decay=0))
    task = small_pix2pix(generator_optimizer=adam, discriminator_optimizer=adam)
    trainer = make_trainer(task, noise_pairs(size=32), total_examples=20)
    trainer.state.examples.assign(20)
    trainer.run()
    with open(trainer.run_directory.console_log) as file:
        assert "warning" not in file.read()


def test_the_doctor_warns(synthetic_datasets):
    params = [f"DATA_DIR = {synthetic_datasets!r}", "pix2pix.Pix2Pix.generator_filters = 2"]

    def plan(total):
        return plan_report(
            gin_files=["gin/quickstart.gin"],
            gin_params=[*params, f"TOTAL_EXAMPLES = {total!r}"],
            measure_memory=False,
        )

    # The factor of the last epoch of 200 is 1 - 100 / 101, that of epoch 201 is 0.
    assert "Warning" not in plan("200ep")
    warning = plan("300ep").splitlines()[-1]
    assert warning.startswith("Warning: the learning rate of discriminator, generator is 0 from example ")
    assert "(epoch 200) on" in warning


def test_what_a_longer_run_does_to_a_relative_schedule(noise_pairs, small_pix2pix):
    relative = Adam(schedule=LinearDecay(constant="50%", decay="50%"))
    task = small_pix2pix(generator_optimizer=relative, discriminator_optimizer=Adam())
    plan = plan_of(task, noise_pairs(), total_examples="300ep")
    (line,) = changed_rate_lines(plan, task, earlier_total=200 * EPOCH, examples=199 * EPOCH)
    # Epoch 200: 1 - 100 / 101 before, 1 - 50 / 151 after.
    assert "from 2400 to 3600 examples" in line and "generator 0.0099 to 0.669" in line
    assert "discriminator" not in line
    assert changed_rate_lines(plan, task, earlier_total=200 * EPOCH, examples=50 * EPOCH) == []
    assert changed_rate_lines(plan, task, earlier_total=200 * EPOCH, examples=300 * EPOCH) == []


SMALL = ("LOAD_SIZE = 36", "CROP_SIZE = 32", "LOG_EVERY = 1", "BATCH_SCHEDULE = 200", "SAMPLE_EVERY = 0")


def test_prolonging_a_run_is_told_and_decays_later(synthetic_datasets, small_networks, tmp_path):
    """Two epochs of 400 become four: the learning rate is that of a run of four from then on."""
    workdir = str(tmp_path / "run")

    def run(total):
        params = [f"DATA_DIR = {synthetic_datasets!r}", f"TOTAL_EXAMPLES = {total!r}", *SMALL]
        train(gin_files=["gin/pix2pix.gin"], gin_params=params, workdir=workdir)
        return {r["examples"]: r["learning_rate/generator"] for r in read_rows(f"{workdir}/train.jsonl")}

    rates = run("2ep")
    assert [rates[e] / 2e-4 for e in (400, 600, 800)] == pytest.approx([1, 0.5, 0.5], rel=1e-6)
    rates = run("4ep")
    assert [rates[e] / 2e-4 for e in (800, 1000, 1400, 1600)] == pytest.approx(
        [0.5, 2 / 3, 1 / 3, 1 / 3], rel=1e-6
    )
    with open(f"{workdir}/log.txt") as file:
        lines = [line for line in file if line.startswith("TOTAL_EXAMPLES has changed from 800 to 1600")]
    [line] = lines
    assert "at example 800: discriminator 0 to 0.667, generator 0 to 0.667" in line
    with open(f"{workdir}/config.gin") as file:
        assert total_examples(file.read(), examples_per_epoch=400) == 1600
