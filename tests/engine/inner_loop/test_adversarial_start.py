"""Before `Experiment.adversarial_start` generators learn from their reconstruction losses alone."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.inner_loop.due_phases import DuePhases
from engine.outer_loop.run_plan import warm_up_lines
from engine.task import Phase
from models.bicycle_gan import BicycleGan
from models.colourisation import Colourisation
from models.cut import Cut
from models.cyclegan import CycleGan
from models.latent_networks import LatentNetworks
from models.pix2pix import Pix2Pix
from models.regularisation import Regularisation
from models.scaled_discriminators import ScaledDiscriminators
from models.super_resolution import SuperResolution
from models.supervised import Supervised
from tests.helpers.micro_batches import assert_same, plans_of, train

SMALL = {"generator_filters": 2, "discriminator_filters": 2}


def of_the_discriminators(values):
    """Variables of discriminators, their optimizer, and pools: what nothing may change before they join."""
    parts = ("discriminator", "task/")
    return {name: value for name, value in values.items() if any(part in name for part in parts)}


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
            position = tf.constant(step, tf.int64), tf.constant(examples, tf.int64)
            traced = due.traced_pattern_at(step=position[0], examples=position[1])
            assert due.patterns[int(traced)] == expected
    assert DuePhases((critic, generator)).patterns == [(critic,), (critic, generator)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_warm_up_is_supervised_and_then_the_discriminator_starts_from_its_initial_values(
    make_trainer, noise_pairs, small_pix2pix, replicas
):
    """Batch norm, spectral norm, R1 every second step, an average; 3 examples a step, the start in a step."""
    settings = {"total_examples": 24, "precision": "float64", "cpu_replicas": replicas}
    regularisation = Regularisation(spectral_norm=True, r1=1.0, r1_every=2)
    task = small_pix2pix(norm="instance", dropout=False, regularisation=regularisation, ema_decay=0.9)
    data = noise_pairs(size=32)
    trainer = make_trainer(task, data, adversarial_start=8, **settings)

    class Alone(Supervised):
        """The same generator with the same initial values, without a discriminator."""

        def networks(self, example):
            return {"generator": small_pix2pix.networks(task, example)["generator"]}

    alone = make_trainer(
        Alone(norm="instance", l1_weight=100.0, ema_decay=0.9), data, **settings
    )
    plans = plans_of(3, None, replicas, steps=3)
    warm, expected = train(trainer, plans), train(alone, plans)
    assert warm[0].shape == (3, 1)  # only L1 is there
    np.testing.assert_allclose(warm[0], expected[0], rtol=0, atol=1e-10)
    for name, value in expected[1].items():
        if name != "best":
            np.testing.assert_allclose(warm[1][name], value, rtol=0, atol=1e-10, err_msg=name)
    untouched = of_the_discriminators(trainer.initial)
    assert len(untouched) > 8
    for name, value in untouched.items():
        np.testing.assert_array_equal(warm[1][name], value, err_msg=name)
    # The fourth step starts at example 9, behind 8: all phases of step number 3 are due, R1 too.
    metrics = trainer.loop.run(
        trainer_batches(trainer, plans[0], 9), num_steps=1, step=3, examples=9, layout=plans[0]
    ).metrics
    assert {"loss/discriminator/real", "loss/generator/gan", "loss/generator/l1", "loss/r1/penalty"} <= set(
        metrics
    )
    moved = {name: variable.numpy() for name, variable in trainer.state.variables().items()}
    changed = [n for n, v in untouched.items() if not np.array_equal(moved[n], v)]
    assert {"beta1_power", "kernel"} <= {name.rsplit("/", 1)[-1] for name in changed} | {"kernel"}
    [power] = [v for n, v in moved.items() if n.endswith("discriminator/beta1_power")]
    assert power == pytest.approx(task.optimizers["discriminator"].beta1 ** 2)  # two updates: it, and R1's
