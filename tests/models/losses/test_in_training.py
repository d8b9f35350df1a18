"""Losses that need more than two images, in training steps with replicas and micro-batches."""

import numpy as np
import pytest
import tensorflow as tf

from models import losses
from tests.helpers.micro_batches import assert_same, plans_of, train

SETTINGS = {"total_examples": 1, "precision": "float64"}


@pytest.fixture
def make_task(small_pix2pix):
    def make(terms, *, frozen_networks=dict):
        """pix2pix whose generator minimises `terms(step, logits of its fakes)`."""

        class Task(small_pix2pix):
            def frozen_networks(self, example):
                return frozen_networks()

            def generator_loss(self, step):
                return terms(step, self._discriminator(step)(step.outputs["fake"], "fake"))

        return Task(norm="instance", dropout=False)

    return make


def test_feature_matching_trains_and_does_not_depend_on_replicas_or_micro_batches(
    make_trainer, noise_pairs, make_task
):
    def terms(step, logits):
        inner = losses.with_activations(step.networks["discriminator"], ["relu", "activation"])
        pairs = [
            tf.concat([step.batch["input"], x], -1) for x in (step.outputs["fake"], step.batch["target"])
        ]
        fake, real = (inner(pair, training=True) for pair in pairs)
        return {"features": 10 * losses.feature_matching(fake, real)}

    task, data = make_task(terms), noise_pairs(size=16)
    one = make_trainer(task, data, **SETTINGS)
    whole = train(one, plans_of(5, None, 1, steps=3))
    assert_same(train(one, plans_of(5, 2, 1, steps=3)), whole)
    two = make_trainer(task, data, cpu_replicas=2, **SETTINGS)
    assert_same(train(two, plans_of(5, None, 2, steps=3)), whole)


def test_top_k_does_not_depend_on_replicas_but_couples_a_micro_batch(make_trainer, noise_pairs, make_task):
    def terms(step, logits):
        value = losses.generator_loss(logits, "bce")
        return {"best": losses.top_k(value, losses.mean_per_example(logits), step, fraction=0.5)}

    task, data = make_task(terms), noise_pairs(size=16)
    one = make_trainer(task, data, **SETTINGS)
    whole = train(one, plans_of(5, None, 1, steps=3))
    two = make_trainer(task, data, cpu_replicas=2, **SETTINGS)
    assert_same(train(two, plans_of(5, None, 2, steps=3)), whole)
    accumulated = train(one, plans_of(5, 2, 1, steps=3))
    assert np.all(np.isfinite(accumulated[0])) and np.any(np.abs(accumulated[0] - whole[0]) > 1e-6)


def test_perceptual_loss_on_replicas_is_in_no_checkpoint(make_trainer, noise_pairs, make_task):
    settings = losses.Perceptual(
        application="MobileNetV2", weights=None, layers=("expanded_conv_project_BN",)
    )

    def terms(step, logits):
        images = step.outputs["fake"], step.batch["target"]
        return {"perceptual": settings.distance(step.frozen_networks["classifier"], *images)}

    def frozen_networks():
        return {"classifier": settings.build()}

    task, data = make_task(terms, frozen_networks=frozen_networks), noise_pairs(size=16)
    one = make_trainer(task, data, **SETTINGS)
    whole = train(one, plans_of(3, None, 1, steps=2))
    assert np.all(whole[0][:, -1] > 0) and whole[0][0, -1] != whole[0][1, -1]
    assert not [name for name in whole[1] if "expanded" in name or "Conv1" in name]
    two = make_trainer(task, data, cpu_replicas=2, **SETTINGS)
    assert_same(train(two, plans_of(3, None, 2, steps=2)), whole)
