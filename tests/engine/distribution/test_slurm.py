"""TF_CONFIG made from the variables that srun sets."""

import json

import pytest

from engine.distribution.slurm import tf_config_of_slurm
from engine.errors import ConfigurationError


@pytest.fixture
def step(monkeypatch):
    """Three tasks on two nodes, as task 2 of them sees it."""
    variables = {
        "SLURM_JOB_ID": "4310007",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[9-10]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURMD_NODENAME": "node10",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_tasks_are_workers_in_their_order(step):
    assert json.loads(tf_config_of_slurm()) == {
        "cluster": {"worker": ["node9:20007", "node9:20008", "node10:20007"]},
        "task": {"type": "worker", "index": 2},
    }


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"])
def test_outside_a_step_there_is_none(step, variable):
    step.delenv(variable)
    assert tf_config_of_slurm() is None


def test_another_layout_is_refused(step):
    step.setenv("SLURMD_NODENAME", "node9")
    with pytest.raises(ConfigurationError, match="task 2 .* node9.* node10; add --distribution=block"):
        tf_config_of_slurm()
