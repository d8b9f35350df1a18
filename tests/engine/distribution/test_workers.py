"""Two worker processes over loopback give what one process gives."""

import os
import subprocess
import sys

import numpy as np
import pytest

from engine.launch import tf_configs
from engine.storage.run_directory import read_rows
from tests.helpers.runs import WGAN_GP


def start(workdir, datasets, **environment):
    # 3 examples on 2 workers is (2, 1); of a batch of 1 the second has none; 5 are two micro-batches,
    # (2, 2) and (1, 0), where one process has three.
    params = [
        f"DATA_DIR = {datasets!r}",
        "BATCH_SCHEDULE = '0:3, 12:1, 14:5'",
        "LARGEST_MICRO_BATCH = 2",
        "TOTAL_EXAMPLES = 24",
        "CPU_REPLICAS = 1",
        "PRECISION = 'float64'",
        "LEARNING_RATE = 0.01",
    ]
    command = [sys.executable, "-m", "engine.train", f"--gin_file={WGAN_GP}", f"--workdir={workdir}"]
    return subprocess.Popen(
        command + [f"--gin_param={param}" for param in params],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output


def without_volatile(path):
    rows = read_rows(path)
    return [
        {k: v for k, v in row.items() if k.startswith(("loss/", "metric/")) or k == "examples"}
        for row in rows
    ]


@pytest.mark.soak
def test_two_workers_equal_one_process(tmp_path, synthetic_datasets):
    finish(*(start(tmp_path / "two", synthetic_datasets, TF_CONFIG=tf_config) for tf_config in tf_configs(2)))
    finish(start(tmp_path / "one", synthetic_datasets))
    assert sorted(os.listdir(tmp_path / "two")) == sorted(os.listdir(tmp_path / "one"))
    rows = read_rows(str(tmp_path / "two/train.jsonl"))
    assert [(row["replicas"], row["accumulation"]) for row in rows] == [(2, 1)] * 6 + [(2, 2)] * 2
    for log in ("train.jsonl", "eval.jsonl"):
        two, one = (without_volatile(str(tmp_path / run / log)) for run in ("two", "one"))
        assert len(two) == len(one) and two[-1].keys() == one[-1].keys()
        for left, right in zip(two, one, strict=True):
            for name, value in right.items():
                # A sum over two workers has the same bits as one over two replicas of a process. Here the
                # process has one replica, so sums round differently.
                np.testing.assert_allclose(left[name], value, rtol=0, atol=1e-8, err_msg=name)
