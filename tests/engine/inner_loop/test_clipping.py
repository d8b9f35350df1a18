"""Clipping by the norm of a phase's whole gradient, against its closed form in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.errors import ConfigurationError
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.task import Adam, Phase
from tests.helpers.scale_task import SIZE, Scale, images

BATCH, STEPS = 7, 6
CLIP_NORM = 0.42


class TwoScales(Scale):
    """One phase over two networks, the second's gradient three times as large."""

    def __init__(self, clip_norm):
        # A large epsilon, so that the size of gradients matters to Adam.
        settings = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.9, "epsilon": 0.3}
        super().__init__(adam=Adam(**settings, clip_norm=clip_norm))

    def phases(self):
        return (Phase(name="fit", loss=self.fit, updates=("first", "second"), optimizer="adam"),)

    def fit(self, step):
        def square(output):
            return tf.reduce_mean((output - step.batch["target"]) ** 2, axis=[1, 2, 3])

        second = step.networks["second"](step.batch["input"], training=True)
        return {"first": square(step.outputs["first"]), "second": 3 * square(second)}


def by_hand(data, clip_norm):
    """Norms before clipping [steps] and the weights after the last step, [networks, channels]."""
    w, m, v = np.ones([2, 3]), np.zeros([2, 3]), np.zeros([2, 3])
    norms = []
    for t in range(1, STEPS + 1):
        x, target = images(data, range(BATCH * (t - 1), BATCH * t))
        gradient = np.stack(
            [
                factor * (2 * x * (weights * x - target)).sum(axis=(0, 1, 2)) / (BATCH * SIZE * SIZE * 3)
                for factor, weights in zip((1, 3), w, strict=True)
            ]
        )
        norms.append(np.linalg.norm(gradient))
        if norms[-1] > clip_norm:
            gradient *= clip_norm / norms[-1]
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        w = w - 0.1 * m / (1 - 0.5**t) / (np.sqrt(v / (1 - 0.9**t)) + 0.3)
    return norms, w


def by_engine(trainer, largest):
    plan = BatchLayout(global_batch=BATCH, replicas=trainer.devices.replicas, largest_micro_batch=largest)
    batches = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=plan)
    results = [
        trainer.loop.run(batches, num_steps=1, step=t, examples=BATCH * t, layout=plan) for t in range(STEPS)
    ]
    norms = [result.metrics["grad_norm/fit"] for result in results]
    networks = trainer.state.networks
    return norms, np.stack([np.ravel(networks[n].get_weights()[0]) for n in ("first", "second")])


@pytest.mark.parametrize(("replicas", "largest"), [(1, None), (1, 2), (2, None), (3, 1)])
def test_clipping_equals_its_closed_form(make_trainer, noise_pairs, replicas, largest):
    data = noise_pairs(size=SIZE)
    expected = by_hand(data, CLIP_NORM)
    assert min(expected[0]) < CLIP_NORM < max(expected[0])  # some steps are clipped, others are not
    unclipped = by_hand(data, np.inf)[1]
    assert np.abs(unclipped - expected[1]).min() > 1e-3
    trainer = make_trainer(
        TwoScales(CLIP_NORM), data, cpu_replicas=replicas, total_examples=1, precision="float64"
    )
    norms, weights = by_engine(trainer, largest)
    np.testing.assert_allclose(norms, expected[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(weights, expected[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("wrong", [0, 0.0, -1.0, float("inf"), float("nan")])
def test_norms_that_clip_nothing_or_all_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="Adam.clip_norm = .*above 0 .*None for no clipping"):
        Adam(clip_norm=wrong)
