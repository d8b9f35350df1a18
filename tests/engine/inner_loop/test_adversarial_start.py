"""Before `Experiment.adversarial_start` generators learn from their reconstruction losses alone."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.inner_loop.due_phases import DuePhases, warm_up_phases
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.run_plan import plan_run, warm_up_lines
from engine.task import Phase, Step
from models.bicycle_gan import BicycleGan
from models.colourisation import Colourisation
from models.cut import Cut
from models.cyclegan import CycleGan
from models.fidelity import Fidelity
from models.pix2pix import Pix2Pix
from models.super_resolution import SuperResolution
from models.supervised import Supervised
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.small_cyclegan.small_cyclegan import SmallCycleGan
from tests.helpers.small_training import NoisePairs, SmallPix2Pix


def of_the_discriminators(values):
    """Variables of discriminators, their optimizer, and pools: what nothing may change before they join."""
    return {name: v for name, v in values.items() if "discriminator" in name or "pool" in name}


def phase(name, **settings):
    return Phase(name=name, loss=lambda step: {}, updates=(name,), optimizer="adam", **settings)


def test_a_step_belongs_to_the_warm_up_if_it_starts_before_the_end_of_it():
    critic = phase("critic")
    generator = phase("generator", every=3, reconstruction=lambda step: {"l1": step})
    due = DuePhases((critic, generator), adversarial_start=10)
    warm_up = (dataclasses.replace(generator, loss=generator.reconstruction, every=1),)
    for batch in (1, 3, 4, 10, 11):
        for step in range(20):
            examples = step * batch
            expected = warm_up if examples < 10 else (critic, generator) if step % 3 == 2 else (critic,)
            assert due.patterns[due.pattern_at(step=step, examples=examples)] == expected
            traced = due.traced_pattern_at(
                step=tf.constant(step, tf.int64), examples=tf.constant(examples, tf.int64)
            )
            assert due.patterns[int(traced)] == expected
    assert DuePhases((critic, generator)).patterns == [(critic,), (critic, generator)]


class Alone(Supervised):
    """The generator of `SmallPix2Pix` with the same initial values, and no discriminator."""

    def networks(self, example):
        return {"generator": SmallPix2Pix.networks(self, example)["generator"]}


def test_the_warm_up_is_supervised_training_that_leaves_the_discriminator_alone(
    make_trainer, noise_pairs, small_pix2pix
):
    """On 2 replicas, with batch norm, whose statistics must not move, and an average."""
    data, common = noise_pairs(size=32), {"norm": "batch", "dropout": False, "ema_decay": 0.9}
    settings = {"total_examples": 24, "precision": "float64"}
    trainer = make_trainer(small_pix2pix(**common), data, adversarial_start=8, cpu_replicas=2, **settings)
    alone = make_trainer(Alone(**common, l1_weight=100.0), data, **settings)
    plans = plans_of(3, None, 2, steps=3)
    warm, expected = train(trainer, plans), train(alone, plans_of(3, None, 1, steps=3))
    assert warm[0].shape == (3, 1)  # L1 alone
    np.testing.assert_allclose(warm[0], expected[0], rtol=0, atol=1e-8)
    for name, value in expected[1].items():
        if name != "best":
            np.testing.assert_allclose(warm[1][name], value, rtol=0, atol=1e-8, err_msg=name)
    initial = of_the_discriminators(trainer.initial)
    assert any("moving_variance" in name for name in initial) and len(initial) > 10
    for name, value in initial.items():
        np.testing.assert_array_equal(warm[1][name], value, err_msg=name)
    # The warm-up ended in the third step. The fourth is the first update of the discriminator.
    joined = [name for name in train_on(trainer, plans[0], step=3, examples=9) if name.startswith("loss/")]
    terms = ["discriminator/real", "discriminator/fake", "generator/gan", "generator/l1"]
    assert sorted(joined) == sorted(f"loss/{term}" for term in terms)
    after = {name: variable.numpy() for name, variable in trainer.state.variables().items()}
    assert not all(np.array_equal(after[name], value) for name, value in initial.items())
    [power] = [value for name, value in after.items() if name.endswith("discriminator/beta1_power")]
    assert power == pytest.approx(trainer.experiment.task.optimizers["discriminator"].beta1)


def train_on(trainer, plan, *, step, examples):
    """Metrics of one step more."""
    iterator = distributed_batches(
        trainer.devices, trainer.experiment.data, position_examples=examples, plan=plan
    )
    return trainer.loop.run(iterator, num_steps=1, step=step, examples=examples, layout=plan).metrics


@pytest.fixture(scope="module")
def whole():
    """The results of one replica in whole batches, which the others must equal."""
    return {}


@pytest.mark.parametrize(("replicas", "largest"), [(1, None), (2, 2)])
def test_replicas_micro_batches_and_growth_change_nothing(
    make_trainer, noise_pairs, whole, replicas, largest
):
    """CycleGAN with its pools. The batch grows in the warm-up, whose end lies in the step from 6 to 13."""
    task = SmallCycleGan(noted=40, norm="instance", pool_size=3)
    settings = {"total_examples": 27, "precision": "float64", "adversarial_start": 8}
    trainer = make_trainer(task, noise_pairs(size=16), cpu_replicas=replicas, **settings)
    plans = plans_of(3, largest, replicas, steps=2) + plans_of(7, largest, replicas, steps=1)
    losses, variables = train(trainer, plans)
    assert losses.shape == (3, 4)  # cycle and identity of both domains
    for name, value in of_the_discriminators(trainer.initial).items():
        np.testing.assert_array_equal(variables[name], value, err_msg=name)
    joined = train_on(trainer, plans[-1], step=3, examples=13)
    assert len([name for name in joined if name.startswith("loss/")]) == 10
    after = {name: variable.numpy() for name, variable in trainer.state.variables().items()}
    found = np.append(losses, list(joined.values())), after
    assert_same(found, whole.setdefault("found", found))


def a_step(batch, outputs, networks=()):
    """A step without discriminators: a loss that looks for one fails."""
    fields = {name: None for name in ("seeds", "step", "examples", "gather", "own")}
    return Step(networks=dict(networks), batch=batch, outputs=outputs, state={}, **fields)


@pytest.mark.parametrize("make", [Pix2Pix, Colourisation, SuperResolution])
def test_tasks_of_pix2pix_warm_up_on_their_distances(make):
    task = make(l1_weight=2.0, fidelity=Fidelity())
    [generator] = warm_up_phases(task.phases())
    assert (generator.name, generator.updates) == ("generator", ("generator",))
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, [2, 4, 4, 3])
    fake = rng.uniform(-1, 1, [2, 4, 4, 2 if make is Colourisation else 3])
    found = generator.loss(a_step({"input": target, "target": target}, {"fake": fake}))
    real = target[..., 1:] if make is Colourisation else target
    assert list(found) == ["l1"]
    np.testing.assert_allclose(found["l1"], 2.0 * np.abs(fake - real).mean(axis=(1, 2, 3)))


def test_bicycle_gan_warms_up_as_a_cvae():
    task = BicycleGan(l1_weight=3.0, kl_weight=0.5)
    [generator] = warm_up_phases(task.phases())
    assert generator.updates == ("generator", "encoder")
    rng = np.random.default_rng(0)
    real, fake = rng.uniform(-1, 1, [2, 2, 4, 4, 3])
    mean, log_variance = rng.normal(size=[2, 2, 8])
    outputs = {"encoded": fake, "mean": mean, "log_variance": log_variance}
    found = generator.loss(a_step({"target": real}, outputs))
    assert list(found) == ["l1", "kl"]
    np.testing.assert_allclose(found["l1"], 3.0 * np.abs(fake - real).mean(axis=(1, 2, 3)))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    np.testing.assert_allclose(found["kl"], 0.5 * kl)


def test_cyclegan_warms_up_on_cycles_and_identities():
    task = CycleGan(input_cycle_weight=2.0, target_cycle_weight=3.0, identity_weight=0.5)
    [generators] = warm_up_phases(task.phases())
    rng = np.random.default_rng(0)
    names = ("input", "target", "fake_input", "fake_target", "identity_input", "identity_target")
    images = dict(zip(names, rng.uniform(-1, 1, [6, 2, 4, 4, 3]), strict=True))
    networks = {
        "input_to_target": lambda x, training: 0.5 * x,
        "target_to_input": lambda x, training: -x,
    }
    batch = {name: images[name] for name in ("input", "target")}
    found = generators.loss(a_step(batch, images, networks))

    def l1(a, b):
        return np.abs(a - b).mean(axis=(1, 2, 3))

    expected = {
        "cycle_input": 2.0 * l1(-images["fake_target"], images["input"]),
        "identity_input": 1.0 * l1(images["identity_input"], images["input"]),
        "cycle_target": 3.0 * l1(0.5 * images["fake_input"], images["target"]),
        "identity_target": 1.5 * l1(images["identity_target"], images["target"]),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)


def plan_of(task, **settings):
    experiment = Experiment(task=task, data=NoisePairs(train_examples=10), **settings)
    return plan_run(experiment, replicas=1, largest_micro_batch=None, static_shapes=False)


def test_lengths_may_be_epochs_and_the_run_says_what_learns():
    plan = plan_of(CycleGan(), total_examples=100, adversarial_start="2ep")
    assert plan.adversarial_start == 20
    assert warm_up_lines(plan, CycleGan()) == [
        "Warm-up until example 20: input_to_target and target_to_input alone, from reconstruction losses "
        "(ADVERSARIAL_START)"
    ]
    assert warm_up_lines(plan_of(Cut(), total_examples=100), Cut()) == []


@pytest.mark.parametrize(
    "task",
    [
        Cut(),
        Supervised(),
        Pix2Pix(l1_weight=0.0),
        BicycleGan(variant="clr_gan"),
        BicycleGan(l1_weight=0.0),
        CycleGan(input_cycle_weight=0.0, target_cycle_weight=0.0),
    ],
    ids=lambda task: type(task).__name__,
)
def test_tasks_without_a_reconstruction_loss_refuse(task):
    name = type(task).__name__
    with pytest.raises(ConfigurationError, match=f"ADVERSARIAL_START = 5: {name}, as it is set, has no"):
        plan_of(task, total_examples=100, adversarial_start=5)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("10ep", "ADVERSARIAL_START = '10ep': the discriminators would never join a run of 100 examples"),
        ("50%", "ADVERSARIAL_START = '50%': not a length of training here"),
        (-1, "ADVERSARIAL_START = -1: not a length"),
    ],
)
def test_bad_lengths_are_refused(start, message):
    with pytest.raises(ConfigurationError, match=message):
        plan_of(Pix2Pix(), total_examples=100, adversarial_start=start)
