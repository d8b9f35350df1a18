"""The largest micro-batch, measured in a process of its own."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.memory_model import MemoryModel
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.memory import probe
from engine.memory.probe_process import probe_experiment, xla_report_bytes
from tests.helpers.runs import WGAN_GP

MIB = 2**20
SMALL = ["pix2pix.Pix2Pix.generator_filters = 4", "pix2pix.Pix2Pix.discriminator_filters = 4"]


@pytest.fixture(scope="module")
def small_text(synthetic_datasets):
    params = [f"DATA_DIR = {synthetic_datasets!r}", "LOAD_SIZE = 144", "CROP_SIZE = 128", *SMALL]
    return loader.load_experiment(gin_files=["gin/quickstart.gin"], gin_params=params)[1]


@pytest.fixture(scope="module")
def found(small_text):
    """A probe up to 16 examples, of which the memory of this machine is no limit."""
    tf.random.set_seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ)
    policy = keras.config.dtype_policy().name
    result = probe.measure(small_text, limit=16)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ))
    assert keras.config.dtype_policy().name == policy
    first = tf.random.uniform([])
    tf.random.set_seed(5)
    assert first == tf.random.uniform([])  # the global generator had not moved
    return result


def test_peaks_rise_with_the_micro_batch(found):
    sizes, peaks = zip(*found.points, strict=True)
    assert sizes == (1, 2, 4, 8, 16)
    assert peaks[2] < peaks[3] < peaks[4]
    assert all(100 * MIB < peak < found.budget_bytes for peak in peaks)
    assert found.model == MemoryModel.fit(found.points)
    assert found.largest_micro_batch == 16
    assert 0 < found.sec_per_example < 60
    assert found.xla is None  # JIT_COMPILE is False


INDEPENDENT = """
import resource, sys
from engine.gin_config import loader
from engine.distribution.host_memory import reset_peak_resident
from engine.memory.probe_process import run_steps
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory

trainer = Trainer(loader.load_experiment_text(sys.stdin.read(), where="stdin"), RunDirectory(""))
run_steps(trainer, 1)  # compiles
reset_peak_resident()  # what compiling left behind would hide what steps take
run_steps(trainer, int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.soak
def test_bytes_of_an_example_on_real_data(found, small_text):
    """Another meter (getrusage), the real data set, sizes the probe has not seen, a process for each."""
    peaks = {
        size: int(
            subprocess.run(
                # From a small process: of the one that starts it a program inherits the peak, too.
                ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", INDEPENDENT, str(size)],
                input=small_text,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for size in (3, 14)
    }
    # Inside the range that was measured: beyond it, memory grows more slowly than the line. Made-up and real
    # data are not read alike, and runs differ by a quarter.
    assert 0.5 < found.model.bytes_per_example / ((peaks[14] - peaks[3]) / 11) < 2


def test_told_of_less_memory(found, small_text):
    told = probe.measure(small_text, limit=16, budget_bytes=found.model.at(6))
    assert 1 <= told.largest_micro_batch < found.largest_micro_batch
    assert told.budget_bytes == found.model.at(6)
    within = [size <= told.budget_bytes for batch, size in told.points if batch <= told.largest_micro_batch]
    assert all(within) and len(within) >= 1
    assert max(batch for batch, _ in told.points) < 16


def test_too_little_for_one_example(synthetic_datasets, monkeypatch):
    """On two replicas, with a task in a module beside its gin file, as a worker of a cluster."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["localhost:1", "localhost:2"]}}))
    params = [f"DATA_DIR = {synthetic_datasets!r}", "STRATEGY = 'mirrored'"]
    text = loader.load_experiment(gin_files=[WGAN_GP], gin_params=params)[1]
    with pytest.raises(
        ConfigurationError, match=r"one example .* takes \d+ MiB, and 50 MiB .* CROP"
    ) as error:
        probe.measure(text, limit=8, budget_bytes=50 * MIB)
    assert "\n" not in str(error.value) and 'PRECISION = "bfloat16"' in str(error.value)


@pytest.fixture
def child_that(monkeypatch):
    """Replaces the child by one that prints these points and ends like this."""

    def end(returncode, *points, stderr="", exhausted=False):
        reports = [probe.Report(budget_bytes=1000, points=points[:count]) for count in range(len(points) + 1)]
        reports += [dataclasses.replace(reports[-1], exhausted=True)] if exhausted else []
        stdout = "".join(report.to_line() for report in reports) + '{"micro_ba'
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda command, **kwargs: subprocess.CompletedProcess(command, returncode, stdout, stderr),
        )
        return probe.measure("", limit=64)

    return end


def test_child_that_ran_out_of_memory(child_that):
    points = [(1, 110), (2, 120), (4, 140)]
    assert child_that(0, *points).largest_micro_batch == 64
    for ended in ({"returncode": -signal.SIGKILL}, {"returncode": 0, "exhausted": True}):
        result = child_that(ended.pop("returncode"), *points, **ended)
        assert result.largest_micro_batch == 4 and result.points == tuple(points)
    with pytest.raises(ConfigurationError, match="takes more memory than there is"):
        child_that(-signal.SIGKILL)


def test_child_that_failed(child_that):
    with pytest.raises(ConfigurationError, match=r"^config: no such thing; mend it$"):
        child_that(2, stderr="noise\nconfig: no such thing; mend it\n")
    with pytest.raises(ConfigurationError, match=r"failed \(KeyError: 7\); correct that, or set a number"):
        child_that(1, (1, 10), stderr="Traceback\nKeyError: 7\n")
    with pytest.raises(ConfigurationError, match=r"failed \(exit code -11\)"):
        child_that(-signal.SIGSEGV)


def test_a_report_survives_the_pipe():
    report = probe.Report(budget_bytes=9, points=((1, 10),), sec_per_example=0.5, xla=(1, 8))
    assert probe.Report.last_of(report.to_line() + '{"cut') == report


def test_xla_report_grows_with_the_batch(tmp_path):
    assert xla_report_bytes(str(tmp_path)) is None
    code = """
import os, sys, tensorflow as tf
weights = tf.Variable(tf.ones([256, 256]))
@tf.function(jit_compile=True)
def step(x):
    return tf.matmul(tf.nn.relu(tf.matmul(tf.sin(x), weights)), weights)
for batch in (256, 1024):
    step(tf.ones([batch, 256]))
    os.mkdir(f"{sys.argv[1]}/{batch}")
    for name in os.listdir(sys.argv[1]):
        if name.endswith("report.txt"):
            os.rename(f"{sys.argv[1]}/{name}", f"{sys.argv[1]}/{batch}/{name}")
"""
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"},
        check=True,
        capture_output=True,
    )
    small, large = (xla_report_bytes(str(tmp_path / str(batch))) for batch in (256, 1024))
    # float32: arguments, results and weights at least; every row needs the same.
    assert small >= 4 * 256 * (256 + 256 + 256)
    assert large - small >= 4 * 256 * 2 * (1024 - 256)
    assert large <= 4 * small


def test_lengths_of_the_data_are_resolved_before_the_data_are_replaced(synthetic_datasets):
    """CUT's crops end after a part of the run, and the random data that are measured know no parts."""
    params = [
        f"DATA_DIR = {synthetic_datasets!r}",
        "DATASET = 'synthetic_facades'",
        "TOTAL_EXAMPLES = '10ep'",
    ]
    experiment, _ = loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=params)
    data = dataclasses.replace(experiment.data, random_crop_epochs="50%")
    local = probe_experiment(dataclasses.replace(experiment, data=data))
    assert local.with_data_lengths() is local and local.data.random_crop_epochs == 5
