"""Invariant 1: any number of replicas gives the losses and weights of one."""

import numpy as np
import pytest

from engine.storage.run_directory import read_rows
from models.pix2pix import Pix2Pix


def train(make_trainer, task, data, **settings):
    """Losses of every step [steps, terms], and the final value of every variable by name."""
    trainer = make_trainer(task, data, **settings)
    trainer.run()
    rows = read_rows(trainer.run_directory.train_log)
    names = [name for name in rows[0] if name.startswith("loss/")]
    losses = np.array([[row[name] for name in names] for row in rows])
    return losses, {name: v.numpy() for name, v in trainer.state.variables().items()}


def largest_difference(left, right):
    assert left.keys() == right.keys()
    return max(np.max(np.abs(left[name] - right[name]), initial=0.0) for name in left if name != "best")


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_replicas_equal_one_over_20_steps(make_trainer, noise_pairs, precision):
    task = Pix2Pix(
        generator="unet_32",
        generator_filters=2,
        discriminator_filters=2,
        norm="instance",
        dropout=False,
    )
    settings = {"batch_schedule": 4, "total_examples": 80, "precision": precision}
    losses, weights = train(make_trainer, task, noise_pairs(size=32), cpu_replicas=1, **settings)
    assert losses.shape == (20, 4)
    assert np.ptp(losses[:, 0]) > 0.01  # it does train: the discriminator's loss moves
    two_losses, two_weights = train(make_trainer, task, noise_pairs(size=32), cpu_replicas=2, **settings)
    if precision == "float64":
        np.testing.assert_allclose(two_losses, losses, rtol=0, atol=1e-8)
        assert largest_difference(weights, two_weights) < 1e-8
    else:
        # Later, training amplifies what rounding differs by, tenfold every two steps, on any machine.
        np.testing.assert_allclose(two_losses[:8], losses[:8], rtol=1e-6)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.soak), 3])
def test_uneven_and_missing_rows_across_a_batch_boundary(
    make_trainer, noise_pairs, small_pix2pix, norm, replicas
):
    # 7 on 2 and 3 replicas is (4, 3) and (3, 3, 1); 1 leaves replicas without an example.
    settings = {"batch_schedule": "0:7, 119:1", "total_examples": 122, "precision": "float64"}
    task, data = small_pix2pix(norm=norm, dropout=False), noise_pairs(size=32)
    losses, weights = train(make_trainer, task, data, cpu_replicas=1, **settings)
    assert len(losses) == 20
    other_losses, other_weights = train(make_trainer, task, data, cpu_replicas=replicas, **settings)
    np.testing.assert_allclose(other_losses, losses, rtol=0, atol=1e-8)
    assert largest_difference(weights, other_weights) < 1e-8
