"""Recipes for more devices against the published rules, and the time of a run."""

import dataclasses

import pytest

from engine.diagnosis.recipes import recipe_lines
from engine.diagnosis.run_time import CPU_FLOP_PER_SEC_PER_CORE, duration, run_time_line
from engine.graphs.flop import flop_of_graph
from engine.optimizers import Adam, Sgd
from tests.engine.diagnosis.conftest import plan_of
from tests.helpers.small_training import SmallPix2Pix


def rows(experiment, **settings):
    experiment = dataclasses.replace(experiment, **settings)
    lines = recipe_lines(plan_of(experiment), experiment.task)
    return [line.split() for line in lines[2:4]], lines


def task(optimizer):
    return SmallPix2Pix(generator_optimizer=optimizer, discriminator_optimizer=optimizer)


def test_none_changes_nothing_but_the_batch(experiment):
    (one, four), lines = rows(experiment, learning_rate_rule="none", task=task(Adam(learning_rate=2e-4)))
    assert one[:2] == ["1", "4"] and four[:2] == ["4", "16"]
    assert one[2:] == four[2:]
    assert "leaves everything as set" in lines[-1]


def test_linear_for_sgd_with_a_warmup_of_five_epochs(experiment):
    settings = {"learning_rate_rule": "linear", "task": task(Sgd(learning_rate=0.1, weight_decay=1e-4))}
    (one, four), _ = rows(experiment, **settings)
    # Goyal et al.: 4 times the rate, the same momentum and weight decay, 5 epochs of warm-up.
    assert one[4:] == ["0.1", "momentum", "0.9", "0.0001", "none"]
    assert four[4:] == ["0.4", "momentum", "0.9", "0.0001", "5ep"]
    (_, four), _ = rows(experiment, warmup=1000, **settings)
    assert four[-1] == "1000ex"


def test_square_root_for_adam(experiment):
    optimizer = Adam(learning_rate=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.01)
    settings = {"learning_rate_rule": "square_root", "scale_weight_decay": True, "task": task(optimizer)}
    (one, four), _ = rows(experiment, **settings)
    assert one[4:] == ["0.001", "beta1", "0.9,", "beta2", "0.999", "0.01", "none"]
    # sqrt(4) = 2 on the rate and the decay, 1 - beta times 4 (Malladi et al.; Busbridge et al.).
    assert four[4:10] == ["0.002", "beta1", "0.6,", "beta2", "0.996", "0.02"]


def test_a_rule_without_a_recipe_for_four_devices_says_so(experiment):
    optimizer = Adam(beta1=0.5)
    (_, four), _ = rows(experiment, learning_rate_rule="square_root", task=task(optimizer))
    assert " ".join(four[4:]).startswith("no such rule beta1 below 0")


def test_the_batch_of_a_device_stays(experiment):
    plan = plan_of(experiment)
    two = dataclasses.replace(plan.batches[4], replicas=2)
    lines = recipe_lines(dataclasses.replace(plan, batches={4: two}), experiment.task)
    assert [line.split()[:2] for line in lines[2:4]] == [["1", "2"], ["4", "8"]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (119, "119 s"), (150, "2.5 min"), (3600, "60 min"), (9000, "2.5 h"), (10**6, "12 days")],
)
def test_durations_have_one_unit(seconds, text):
    assert duration(seconds) == text


def test_the_time_of_a_run(trace):
    measured = run_time_line(trace, sec_per_example=3.0, kind="GPU", cores=2)
    assert "the run of 120 examples takes about 6.0 min (0.333 examples a second" in measured
    flop = flop_of_graph(trace.whole, batch=1)
    assumed = run_time_line(trace, sec_per_example=None, kind="CPU", cores=3)
    assert f"takes about {duration(120 * flop / (3 * CPU_FLOP_PER_SEC_PER_CORE))} (at an assumed" in assumed
    assert "takes about" not in run_time_line(trace, sec_per_example=None, kind="GPU", cores=2)
