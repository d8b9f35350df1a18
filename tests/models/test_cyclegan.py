"""CycleGAN: five steps of the reference, replicas, accumulation, restarts, the image pool."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError, RunInterruptedError
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.schedules import LinearDecay
from engine.task import Adam, Seeds
from models.cyclegan import CycleGan
from models.networks import joint_pass
from models.networks.joint_pass import pass_both
from models.networks.layers import Conv, image_input, variable_dtype
from models.networks.norms import normalise
from models.pix2pix import Pix2Pix
from models.regularisation import Regularisation
from tests.helpers.goldens import (
    PATCHGAN,
    RESNET,
    assert_close,
    assert_gradients,
    golden,
    load_reference_weights,
)
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.runs import stop_at, variables

GOLDEN = "cyclegan_resnet6_instance"
# The reference's G_A translates A to B, and its D_A is the discriminator of B.
REFERENCE_NETWORKS = {
    "G_A": "input_to_target",
    "G_B": "target_to_input",
    "D_A": "target_discriminator",
    "D_B": "input_discriminator",
}
REFERENCE_LOSSES = {
    "D_A": ("discriminators/real_target", "discriminators/fake_target"),
    "D_B": ("discriminators/real_input", "discriminators/fake_input"),
    "G_A": ("generators/gan_target",),
    "G_B": ("generators/gan_input",),
    "cycle_A": ("generators/cycle_input",),
    "cycle_B": ("generators/cycle_target",),
    "idt_A": ("generators/identity_target",),
    "idt_B": ("generators/identity_input",),
}


@dataclasses.dataclass(frozen=True)
class GoldenImages:
    """The images of the reference's steps, in order."""

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def is_paired(self):
        return False

    @property
    def train_examples(self):
        return len(self.inputs)

    @property
    def example_spec(self):
        spec = tf.TensorSpec(self.inputs.shape[1:], tf.float32)
        return {"input": spec, "target": spec}

    def batches(self, *, position_examples, global_batch, rows=None):
        images = {"input": self.inputs, "target": self.targets}
        return tf.data.Dataset.from_tensor_slices(images).skip(position_examples).batch(global_batch)


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_five_steps_of_the_reference(make_trainer, replicas):
    data = golden(GOLDEN)
    images = GoldenImages(data["A"][:, 0], data["B"][:, 0])
    task = CycleGan(
        generator="resnet_6blocks", generator_filters=4, discriminator_filters=4, pool_size=0
    )  # the other settings are the reference's
    trainer = make_trainer(task, images, cpu_replicas=replicas, total_examples=5)
    networks = trainer.state.networks
    layers = {net: RESNET if net.startswith("G") else PATCHGAN for net in REFERENCE_NETWORKS}
    for net, name in REFERENCE_NETWORKS.items():
        load_reference_weights(networks[name], GOLDEN, net, layers[net])

    first = {"input": data["A"][0], "target": data["B"][0]}
    preview = {name: np.asarray(image) for name, image in task.preview(networks, first).items()}
    assert list(preview) == ["input", "fake_target", "cycled_input", "target", "fake_input", "cycled_target"]
    assert_close(task.translate(networks, first), data["fake_B"])
    assert_close(preview["fake_target"], data["fake_B"])
    assert_close(preview["fake_input"], data["fake_A"])
    for side, net in (("input", "A"), ("target", "B")):
        distance = 10 * np.abs(preview[f"cycled_{side}"] - first[side]).mean()
        np.testing.assert_allclose(distance, data[f"loss/cycle_{net}"][0], rtol=1e-4)

    plan = BatchLayout(global_batch=1, replicas=replicas)
    iterator = distributed_batches(trainer.devices, images, position_examples=0, plan=plan)
    for step in range(5):
        metrics = trainer.loop.run(iterator, num_steps=1, step=step, examples=step, layout=plan).metrics
        for reference, ours in REFERENCE_LOSSES.items():
            loss = sum(metrics[f"loss/{name}"] for name in ours)
            np.testing.assert_allclose(
                loss, data[f"loss/{reference}"][step], rtol=1e-3, err_msg=f"{reference} of step {step}"
            )
        if step == 0:
            state = trainer.state.variables()
            for net, name in REFERENCE_NETWORKS.items():
                kind = "generators" if net.startswith("G") else "discriminators"
                # After one step Adam's first moment is (1 - beta1) times the gradient.
                gradients = [
                    state[f"optimizer/{kind}/{name}/{index:03d}/m"].numpy() / (1 - Adam().beta1)
                    for index in range(len(networks[name].trainable_variables))
                ]
                assert_gradients(data, net, layers[net], networks[name], gradients)


class TinyCycleGan(CycleGan):
    """Networks of two layers, which compile in a second."""

    def networks(self, example):
        def network(name, channels, made, activation, stride):
            x = image = image_input(channels)
            x = Conv(4, 3, stride=stride, padding=1, name="conv")(x)
            x = normalise(x, self.norm, name="norm")
            x = keras.layers.Activation("relu", name="relu")(x)
            x = Conv(made, 3, padding=1, name="out")(x)
            x = keras.layers.Activation(activation, dtype=variable_dtype(), name="activation")(x)
            return keras.Model(image, x, name=name)

        a, b = (example[side].shape[-1] for side in ("input", "target"))
        networks = (
            network("input_to_target", a, b, "tanh", 1),
            network("target_to_input", b, a, "tanh", 1),
            network("input_discriminator", a, 1, "linear", 2),
            network("target_discriminator", b, 1, "linear", 2),
        )
        return {network.name: network for network in networks}


FLOAT64 = {"total_examples": 1, "precision": "float64"}


@pytest.fixture(scope="module")
def built():
    """Trainers that several tests share, so that each is compiled once."""
    return {}


@pytest.fixture
def on_one_replica(built, make_trainer, noise_pairs):
    """Function: a trainer of `TinyCycleGan` with this norm and a pool of four, at its initial weights."""

    def trainer(norm="instance"):
        set_precision("float64")
        if norm not in built:
            built[norm] = make_trainer(TinyCycleGan(norm=norm, pool_size=4), noise_pairs(size=16), **FLOAT64)
        train(built[norm], [])
        return built[norm]

    return trainer


@pytest.mark.parametrize(
    ("norm", "replicas"), [pytest.param("instance", 2, marks=pytest.mark.soak), ("instance", 3), ("batch", 2)]
)
def test_replicas_change_nothing(make_trainer, noise_pairs, on_one_replica, norm, replicas):
    """Batches of 5, and last replicas without examples; the pool fills, then swaps."""
    task, data = TinyCycleGan(norm=norm, pool_size=4), noise_pairs(size=16)
    whole = train(on_one_replica(norm), plans_of(5, None, 1, 6) + plans_of(1, None, 1, 4))
    assert np.ptp(whole[0][:, 0]) > 0.01  # it does train
    trainer = make_trainer(task, data, cpu_replicas=replicas, **FLOAT64)
    assert_same(train(trainer, plans_of(5, None, replicas, 6) + plans_of(1, None, replicas, 4)), whole)
    for side in ("input", "target"):
        pool, copies = whole[1][f"task/{side}_pool_images"], trainer.state.task_state[f"{side}_pool_images"]
        assert np.all(np.any(pool, axis=(1, 2, 3))) and whole[1][f"task/{side}_pool_stored"] == 4
        for copy in copies.values:
            np.testing.assert_array_equal(copy.numpy(), copies.values[0].numpy())


def test_regularised_on_replicas_with_averages(make_trainer, noise_pairs):
    """R1, a relativistic loss for both discriminators, and moving averages of the generators."""
    task = TinyCycleGan(
        pool_size=4,
        gan_loss="relativistic",
        regularisation=Regularisation(r1=0.01, r1_every=1),
        ema_decay=0.9,
    )
    data = noise_pairs(size=16)
    one = make_trainer(task, data, **FLOAT64)
    whole = train(one, plans_of(5, None, 1, 4))
    assert np.all(np.isfinite(whole[0])) and np.all(np.ptp(whole[0], axis=0) > 1e-7)
    names = {name for name in one.loop._metric_names[0] if name.startswith("loss/")}
    assert {f"loss/r1/penalty_{side}" for side in ("input", "target")} < names
    assert {f"loss/discriminators/pair_{side}" for side in ("input", "target")} < names
    two = make_trainer(task, data, cpu_replicas=2, **FLOAT64)
    assert_same(train(two, plans_of(5, None, 2, 4)), whole)
    averaged = {name.split("/")[1] for name in whole[1] if name.startswith("averaged/")}
    assert averaged == {"input_to_target", "target_to_input"}


def test_settings_of_discriminators_reach_both():
    keras.config.set_dtype_policy("float64")
    regularisation = Regularisation(label_smoothing=0.1, diff_augment=("colour",), spectral_norm=True)
    task, spec = TinyCycleGan(regularisation=regularisation), tf.TensorSpec([8, 8, 3], tf.float64)
    networks = task.networks({"input": spec, "target": spec})
    real, fake = (np.random.default_rng(k).normal(0, 1, (2, 8, 8, 3)) for k in range(2))
    seeds = Seeds(key=tf.constant([1, 2]), global_batch=tf.constant(2), own=lambda x: x)
    step = types.SimpleNamespace(networks=networks, seeds=seeds, label_roles=frozenset())
    for side, discriminator in task.discriminators.items():
        seen = (
            regularisation.augment(x, seeds, f"{side}_discriminator/{role}")
            for x, role in ((real, "real"), (fake, "fake"))
        )
        real_logits, fake_logits = (networks[f"{side}_discriminator"](x).numpy() for x in seen)
        terms = discriminator.discriminator_terms(step, real=real, fake=fake)
        np.testing.assert_allclose(
            terms["real"], 0.5 * np.mean((real_logits - 0.9) ** 2, (1, 2, 3)), rtol=1e-9
        )
        np.testing.assert_allclose(terms["fake"], 0.5 * np.mean(fake_logits**2, (1, 2, 3)), rtol=1e-9)
        found = discriminator.generator_loss(step, real=real, fake=fake)
        np.testing.assert_allclose(found, np.mean((fake_logits - 1) ** 2, (1, 2, 3)), rtol=1e-9)
    spec = tf.TensorSpec([24, 24, 3], tf.float64)
    settings = {"generator_filters": 2, "discriminator_filters": 2, "generator": "resnet_6blocks"}
    task = CycleGan(regularisation=regularisation, **settings)
    networks = task.networks({"input": spec, "target": spec})
    for side in task.discriminators:  # the spectral vectors
        assert len(networks[f"{side}_discriminator"].non_trainable_weights) == 5


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_micro_batches_change_nothing(make_trainer, noise_pairs, on_one_replica, replicas):
    task, data = TinyCycleGan(pool_size=4), noise_pairs(size=16)
    whole = train(on_one_replica(), plans_of(5, None, 1, 8))
    trainer = make_trainer(task, data, cpu_replicas=replicas, **FLOAT64)
    plans = plans_of(5, 4 - replicas, replicas, 8)  # 3 and 2 examples; on two replicas (2, 2) and (1, 0)
    assert plans[0].accumulation == 2
    assert_same(train(trainer, plans), whole)


def test_the_pool_is_of_fakes_made_before_the_generators_update(noise_pairs, on_one_replica):
    data, trainer = noise_pairs(size=16), on_one_replica()
    batch = next(iter(data.batches(position_examples=0, global_batch=3)))
    before = {
        name: trainer.state.networks[name](tf.cast(batch[side], tf.float64)).numpy()
        for name, side in (("input_to_target", "input"), ("target_to_input", "target"))
    }
    _, after = train(trainer, plans_of(3, None, 1, 1))
    for name, pool in (("input_to_target", "target_pool"), ("target_to_input", "input_pool")):
        np.testing.assert_allclose(after[f"task/{pool}_images"][:3], before[name], atol=1e-12)
        assert not after[f"task/{pool}_images"][3].any() and after[f"task/{pool}_stored"] == 3


@pytest.mark.soak
def test_restart_in_the_middle_restores_the_pool_bit_for_bit(make_trainer, noise_pairs, tmp_path):
    settings = {"batch_schedule": 2, "total_examples": 24, "save_every": 1000, "sample_every": 1000}
    data = noise_pairs(size=16)

    def trainer(workdir, **more):
        return make_trainer(TinyCycleGan(pool_size=5), data, workdir=workdir, **settings | more)

    whole = trainer(str(tmp_path / "whole"))
    whole.run()
    workdir = str(tmp_path / "stopped")
    for position in (4, 16):  # while the pool fills; when it is full
        stopped = trainer(workdir)
        stopped.restore()
        stop_at(stopped, position)
        with pytest.raises(RunInterruptedError, match=f"saved at {position} of"):
            stopped.run()
        pool = {name: value for name, value in variables(stopped).items() if "_pool_" in name}
        assert len(pool) == 4 and pool["task/input_pool_images"][:4].any(axis=(1, 2, 3)).all()
        # On another number of replicas, too.
        restored = trainer(workdir, cpu_replicas=2)
        assert restored.restore() == position
        for name, value in pool.items():
            np.testing.assert_array_equal(variables(restored)[name], value, err_msg=name)
    last = trainer(workdir)
    last.restore()
    last.run()
    for name, value in variables(whole).items():
        np.testing.assert_array_equal(variables(last)[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("norm", "dtype", "tolerance"),
    [("instance", "float64", 1e-12), ("none", "float64", 1e-12), ("batch", "float64", 1e-12)]
    + [("batch", "float32", 1e-5)],
)
def test_two_batches_through_one_network_keep_apart(norm, dtype, tolerance, monkeypatch):
    keras.config.set_dtype_policy(dtype)
    # Several replicas join the passes through batch norm; each of them computes as one does.
    monkeypatch.setattr(joint_pass, "replica_count", lambda: 2)
    task = TinyCycleGan(norm=norm)
    spec = tf.TensorSpec([8, 8, 3], dtype)
    network = task.networks({"input": spec, "target": spec})["input_to_target"]
    first, second = (np.random.default_rng(k).normal(k, 1 + k, (3, 8, 8, 3)).astype(dtype) for k in range(2))
    initial = network.get_weights()
    together = pass_both(network, first, second)
    moved = network.get_weights()
    network.set_weights(initial)
    for ours, alone in zip(together, (first, second), strict=True):
        np.testing.assert_allclose(ours, network(alone, training=True), rtol=0, atol=tolerance)
    for name, ours, alone in zip(network.weights, moved, network.get_weights(), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=0, atol=tolerance, err_msg=name.path)
    assert bool(network.non_trainable_weights) == (norm == "batch")


def test_it_learns_to_go_there_and_back(make_trainer, noise_pairs):
    fast = Adam(learning_rate=1e-2)
    task = TinyCycleGan(generator_optimizer=fast, discriminator_optimizer=fast, pool_size=8)
    trainer = make_trainer(task, noise_pairs(size=16), total_examples=1)
    losses, _ = train(trainer, plans_of(4, None, 1, 60))
    names = [name for name in trainer.loop._metric_names[0] if name.startswith("loss/")]
    cycle = [names.index(f"loss/generators/cycle_{side}") for side in ("input", "target")]
    assert np.all(losses[-5:, cycle].mean(0) < 0.7 * losses[:5, cycle].mean(0))


def test_settings_that_cannot_work_are_refused():
    def networks(size=32, channels=(3, 3), **settings):
        input_spec, target_spec = (tf.TensorSpec([size, size, c], tf.float32) for c in channels)
        return CycleGan(generator_filters=2, discriminator_filters=2, **settings).networks(
            {"input": input_spec, "target": target_spec}
        )

    with pytest.raises(ConfigurationError, match="'ls': unknown; use one of bce, lsgan, hinge"):
        CycleGan(gan_loss="ls")
    with pytest.raises(ConfigurationError, match="inputs have 1 and targets 3; use 0"):
        networks(channels=(1, 3))
    with pytest.raises(ConfigurationError, match="'resnet': unknown; use one of"):
        networks(generator="resnet")
    with pytest.raises(ConfigurationError, match="of 16x16 pixels .* at least 24"):
        networks(size=16)
    with pytest.raises(ConfigurationError, match="at least 24"):
        spec = tf.TensorSpec([16, 16, 3], tf.float32)
        Pix2Pix(generator="resnet_6blocks").networks({"input": spec, "target": spec})
    other = networks(size=24, channels=(1, 3), identity_weight=0, generator="resnet_6blocks")
    assert other["input_to_target"].output.shape[-1] == other["target_to_input"].input.shape[-1] == 3
    assert other["input_discriminator"](tf.zeros([1, 24, 24, 1])).shape == (1, 1, 1, 1)


def test_domains_of_other_channels_train_without_identity(make_trainer, noise_pairs):
    class ColourToGrey(noise_pairs):
        @property
        def example_spec(self):
            spec = super().example_spec
            return spec | {"target": tf.TensorSpec([self.size, self.size, 1], tf.float32)}

        def example(self, index):
            example = super().example(index)
            return example | {"target": example["target"][..., :1]}

    trainer = make_trainer(TinyCycleGan(identity_weight=0.0, pool_size=2), ColourToGrey(size=16), **FLOAT64)
    losses, values = train(trainer, plans_of(3, None, 1, 2))
    assert losses.shape == (2, 8) and np.all(np.isfinite(losses))  # 4 of the generators', none of identity
    assert values["task/target_pool_images"].shape == (2, 16, 16, 1)
    assert values["task/input_pool_images"].shape == (2, 16, 16, 3)


def test_gin_file_has_the_published_settings():
    experiment, _ = loader.load_experiment(gin_files=["gin/cyclegan.gin"])
    task, data = experiment.task, experiment.data
    assert task.generator == "resnet_9blocks" and task.norm == "instance"
    assert {d.gan_loss for d in task.discriminators.values()} == {"lsgan"}
    assert task.cycle_weights == {"input": 10, "target": 10} and task.identity_weight == 0.5
    assert {pool.size for pool in task.pools.values()} == {50}
    for optimizer in task.optimizers.values():
        assert (optimizer.learning_rate, optimizer.beta1, optimizer.epsilon_mode) == (2e-4, 0.5, "pytorch")
        assert optimizer.schedule == LinearDecay(constant="50%", decay="50%", convention="end_of_epoch")
    assert (type(data).__name__, data.load_size, data.crop_size) == ("UnpairedImages", 286, 256)
    assert (experiment.batch_schedule, experiment.total_examples) == (1, "200ep")
    other, _ = loader.load_experiment(
        gin_files=["gin/cyclegan.gin"],
        gin_params=["schedules.LinearDecay.convention = 'start_of_epoch'"],
    )
    assert other.task.optimizers["generators"].schedule.convention == "start_of_epoch"
