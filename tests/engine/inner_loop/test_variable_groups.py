"""Groups of variables: frozen bit for bit, rates in proportion, on replicas, restarted; refusals."""

import keras
import numpy as np
import pytest

from engine.errors import ConfigurationError
from engine.inner_loop.variable_groups import find_groups, variable_name
from engine.optimizers import Adam, Sgd
from engine.parameter_groups import ParameterGroup
from models.networks.norms import BatchNorm
from tests.helpers.micro_batches import plans_of, train

GROUPS = (
    ParameterGroup(pattern=("generator/conv/*", "generator/norm/*"), frozen=True),
    ParameterGroup(pattern="generator/out/kernel", learning_rate=0.02),
    ParameterGroup(pattern="discriminator/*", learning_rate=0.005, weight_decay=0.1),
)


def values(trainer):
    return {name: variable.numpy() for name, variable in trainer.state.variables().items()}


def moves(before, after, part):
    return {name: after[name] - before[name] for name in before if part in name and "network/" in name}


def task_of(small_pix2pix, settings, **others):
    task = small_pix2pix(dropout=False, **others)
    task.optimizers = {name: settings for name in task.optimizers}
    return task


def test_frozen_never_change_and_others_move_in_proportion_on_replicas(
    make_trainer, noise_pairs, small_pix2pix
):
    """SGD's first step is proportional to the rate, so it gives the ratio exactly."""
    settings = {"total_examples": 1, "precision": "float64", "cpu_replicas": 2}
    task, data = (
        task_of(small_pix2pix, Sgd(learning_rate=0.01, momentum=0.0), norm="instance"),
        noise_pairs(size=32),
    )
    groups = (ParameterGroup(pattern="generator/conv/*", frozen=True), *GROUPS[1:])
    # The generator's gradient comes after the discriminator's update, which must be the same.
    plain = make_trainer(task, data, **settings, parameter_groups=GROUPS[2:])
    grouped = make_trainer(task, data, **settings, parameter_groups=groups)
    before = values(plain)
    without, after = (train(trainer, plans_of(3, None, 2, steps=1))[1] for trainer in (plain, grouped))
    names = list(moves(before, after, "generator"))
    assert len(names) == 4  # kernels and biases of two convolutions
    for name in names:
        ratio = 0.0 if before[name].shape[-1] == 4 else 2.0 if name.endswith("kernel") else 1.0
        change = after[name] - before[name]
        np.testing.assert_allclose(change, ratio * (without[name] - before[name]), rtol=1e-9, atol=1e-15)
        assert (ratio == 0) == (not change.any())
    later = train(grouped, plans_of(3, None, 2, steps=5))[1]
    for name in (name for name in names if before[name].shape[-1] == 4):
        np.testing.assert_array_equal(later[name], before[name])


def test_frozen_batch_norm_computes_with_its_moving_statistics(make_trainer, noise_pairs, small_pix2pix):
    settings = {"total_examples": 1, "precision": "float64"}
    task, data = task_of(small_pix2pix, Adam(learning_rate=0.01), norm="batch"), noise_pairs(size=32)
    trainer = make_trainer(task, data, **settings, parameter_groups=GROUPS)
    before = values(trainer)
    after = train(trainer, plans_of(5, None, 1, steps=3))[1]
    frozen = [name for name in before if name.startswith("network/generator/") and before[name].ndim == 1]
    frozen = [name for name in frozen if before[name].shape == (4,)]
    assert len(frozen) == 5  # gamma, beta and both statistics; the bias of the convolution before it
    for name in frozen:
        np.testing.assert_array_equal(after[name], before[name])
    moved = [name for name in before if name.startswith("network/discriminator/") and "moving" in name]
    assert moved and all((after[name] != before[name]).any() for name in moved)
    norm = trainer.state.networks["generator"].get_layer("norm")
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4))
    np.testing.assert_array_equal(norm(x, training=True), norm(x, training=False))


def test_a_frozen_norm_by_hand():
    norm = BatchNorm(dtype="float64")
    norm.build((None, 2, 2, 3))
    gamma, beta, mean, variance = np.random.default_rng(1).uniform(0.5, 2, (4, 3))
    norm.set_weights([gamma, beta, mean, variance])
    norm.trainable = False
    x = np.random.default_rng(2).normal(size=(4, 2, 2, 3))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(norm(x, training=True), expected, rtol=1e-12)
    np.testing.assert_array_equal(norm.moving_mean, mean)


def test_a_restart_continues_bit_for_bit(make_trainer, noise_pairs, small_pix2pix, tmp_path):
    task, data = task_of(small_pix2pix, Adam(learning_rate=0.01), norm="batch"), noise_pairs(size=32)

    def trainer(total, name):
        settings = {"total_examples": total, "batch_schedule": 2, "workdir": str(tmp_path / name)}
        settings |= {"feature_extractor": None}  # which would take time to trace
        return make_trainer(task, data, **settings, parameter_groups=GROUPS)

    whole = trainer(12, "whole")
    whole.run()
    trainer(6, "stopped").run()
    resumed = trainer(12, "stopped")
    assert resumed.restore() == 6
    resumed.run()
    for name, value in values(whole).items():
        np.testing.assert_array_equal(values(resumed)[name], value, err_msg=name)
    log = (tmp_path / "whole" / "log.txt").read_text()
    assert "group generator/out/kernel: learning rate 0.02; 1 variable, 108 parameters" in log
    assert "group generator/conv/*, generator/norm/*: frozen; 4 variables, 204 parameters" in log
    assert "  generator/conv/kernel" in log


def network(name="net"):
    image = keras.Input((4,))
    x = keras.layers.Dense(3, name="first")(image)
    return keras.Model(image, keras.layers.Dense(2, name="second")(x), name=name)


def test_names_are_those_of_networks_and_layers():
    model = network()
    names = [variable_name("net", variable) for variable in model.trainable_variables]
    assert names == ["net/first/kernel", "net/first/bias", "net/second/kernel", "net/second/bias"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["net/third/*"], "'net/third/\\*': matches no trainable variable; the networks have net/first"),
        ([("net/first/*", "nett/*")], "'nett/\\*': matches no trainable variable"),
        (["net/first/*", "net/*/bias"], "both match net/first/bias"),
    ],
)
def test_patterns_that_fit_nothing_or_twice_are_refused(patterns, message):
    groups = [ParameterGroup(pattern=pattern, learning_rate=0.1) for pattern in patterns]
    with pytest.raises(ConfigurationError, match=message):
        find_groups(groups, {"net": network()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": ""}, "names no variables"),
        ({"pattern": "a"}, "needs either frozen = True"),
        ({"pattern": "a", "frozen": True, "learning_rate": 0.1}, "needs either frozen = True"),
        ({"pattern": "a", "learning_rate": -0.1}, "ParameterGroup.learning_rate"),
    ],
)
def test_groups_without_a_meaning_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ParameterGroup(**settings)


def test_a_rate_relative_to_zero_and_a_network_all_frozen_are_refused(
    make_trainer, noise_pairs, small_pix2pix
):
    data = noise_pairs(size=32)
    rate = ParameterGroup(pattern="generator/*", learning_rate=0.1)
    with pytest.raises(ConfigurationError, match="relative to the optimizer's"):
        task = task_of(small_pix2pix, Adam(learning_rate=0.0))
        make_trainer(task, data, total_examples=1, parameter_groups=(rate,))
    frozen = ParameterGroup(pattern="generator/*", frozen=True)
    with pytest.raises(ConfigurationError, match="all of the network 'generator' is frozen"):
        make_trainer(small_pix2pix(), data, total_examples=1, parameter_groups=(frozen,))
