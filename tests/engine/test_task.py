"""The contract carries more than pix2pix: a small CycleGAN with one image pool over all replicas."""

import numpy as np
import pytest

from engine.storage.run_directory import read_rows
from tests.helpers.small_cyclegan_task import POOL, SIZE, SmallCycleGan


@pytest.mark.parametrize("replicas", [pytest.param(2, marks=pytest.mark.soak), 3])
def test_small_cyclegan_is_the_same_on_any_number_of_replicas(make_trainer, noise_pairs, replicas):
    settings = {"batch_schedule": "0:4, 12:1", "total_examples": 16, "precision": "float64"}
    trainers = [
        make_trainer(SmallCycleGan(), noise_pairs(size=SIZE), cpu_replicas=n, **settings)
        for n in (1, replicas)
    ]
    values, losses = [], []
    for trainer in trainers:
        trainer.run()
        values.append({name: v.numpy() for name, v in trainer.state.variables().items()})
        rows = read_rows(trainer.run_directory.train_log)
        losses.append([[row[k] for k in row if k.startswith("loss/")] for row in rows])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-8)
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=0, atol=1e-8, err_msg=name)
    pool = trainers[1].state.task_state["pool"]
    assert int(values[0]["task/stored"]) == POOL and np.all(np.any(values[0]["task/pool"], (1, 2, 3)))
    for copy in pool.values:
        np.testing.assert_array_equal(copy.numpy(), pool.values[0].numpy())
