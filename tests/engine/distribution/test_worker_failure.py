"""Of two workers one is stopped, killed, or fails: both end, and the run goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.worker_sync import reraise_worker_loss
from engine.errors import WorkerLostError
from engine.launch import tf_configs
from engine.storage import checkpoints
from tests.helpers.runs import WGAN_GP

TOTAL = 160
PARAMS = [
    "BATCH_SCHEDULE = 2",
    "LEARNING_RATE = 0.01",
    "SAVE_EVERY = 14",
    "SAMPLE_EVERY = 0",
    "EVALUATE_EVERY = 0",
]
# The training program, in which worker 1 runs out of memory in the step that begins at 30 examples.
OUT_OF_MEMORY = """
import json, os
from engine import train
import tensorflow as tf
from engine.inner_loop.train_loop import TrainLoop
run_steps = TrainLoop.run
def run(self, *args, **kwargs):
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1 and kwargs["examples"] == 30:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    return run_steps(self, *args, **kwargs)
TrainLoop.run = run
train.run()
"""


def start(workdir, datasets, *, environment=None, program=("-m", "engine.train"), params=()):
    params = [*PARAMS, f"TOTAL_EXAMPLES = {TOTAL}", f"DATA_DIR = {datasets!r}", *params]
    command = [sys.executable, *program, f"--gin_file={WGAN_GP}", f"--workdir={workdir}"]
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        command + [f"--gin_param={param}" for param in params],
        env=inherited | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, datasets, **kwargs):
    return [
        start(workdir, datasets, environment={"TF_CONFIG": tf_config}, **kwargs)
        for tf_config in tf_configs(2)
    ]


def wait_for_row(workdir, examples, processes):
    log = workdir / "train.jsonl"
    while not log.exists() or f'"examples": {examples},' not in log.read_text():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.01)


def finish(processes, *, within_sec=300):
    """Exit codes and stderr of all; the others are killed if one does not end in time."""
    try:
        outputs = [process.communicate(timeout=within_sec)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def variables(workdir):
    directory = str(workdir / "checkpoints")
    assert checkpoints.list_checkpoints(directory)[-1] == TOTAL
    reader = tf.train.load_checkpoint(os.path.join(directory, f"{TOTAL:08d}", "state"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_ended_for_want_of_another(process, error, began):
    assert process.returncode == 42, error
    assert error.count("\n") == 1 and "another worker has ended or does not answer" in error
    assert time.monotonic() - began < 30


def test_what_workers_know_alone_becomes_the_same_for_all():
    text = """
import json, os
import data.quiet_tensorflow
from engine.distribution.devices import make_devices
from engine.distribution.worker_sync import WorkerSync
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
sync = WorkerSync(make_devices("auto"))
print(sync.all_reduce(stop=False, sec_per_step=1.0 + index))
print(sync.all_reduce(stop=index == 1, sec_per_step=0.1 + index / 3))
"""
    done = subprocess.run(
        [sys.executable, "-m", "engine.launch", "--workers=2", "--", sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    mean = (0.1 + (0.1 + 1 / 3)) / 2
    expected = [f"[worker {i}] {answer}" for i in range(2) for answer in ((False, 1.5), (True, mean))]
    assert sorted(done.stdout.splitlines()) == expected


def test_only_what_another_worker_can_have_caused_is_put_down_to_it(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_configs(2)[0])
    for cause, raised in (
        ("failed to connect to all addresses", WorkerLostError),
        ("Shape mismatch in the collective instance 262", tf.errors.InvalidArgumentError),
    ):
        with pytest.raises(raised), reraise_worker_loss():
            raise tf.errors.InvalidArgumentError(None, None, f"Collective ops is aborted by: {cause}")


def test_a_worker_that_hangs_for_a_while_is_what_the_chief_waits_for(tmp_path, synthetic_datasets):
    """It goes on before TensorFlow misses its heartbeat, after 10 s, which would end the run."""
    params = ["TOTAL_EXAMPLES = 100000", "experiment.Experiment.report_stalls_after = '2s'"]
    workers = start_two(tmp_path, synthetic_datasets, params=params)

    def wait_for_line(words, *, after=0):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = (tmp_path / "log.txt").read_text().splitlines()
            for number, line in enumerate(lines[after:], start=after):
                if words in line:
                    return number, line
            time.sleep(0.02)
        raise AssertionError((words, lines))

    try:
        wait_for_row(tmp_path, 20, workers)
        workers[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        number, line = wait_for_line("another worker, whose output says why")
        assert 1.5 < time.monotonic() - began < 9
        workers[1].send_signal(signal.SIGCONT)
        wait_for_line("moving again after", after=number)
        workers[0].send_signal(signal.SIGTERM)
        codes, errors = finish(workers)
    finally:
        for worker in workers:
            worker.kill()
    assert line.startswith("stalled: ") and line.endswith(" so far)")
    assert codes == [42, 42], errors
    assert errors[0].startswith("SIGTERM: saved at")


@pytest.mark.soak
def test_stopped_then_killed_and_the_weights_are_those_of_an_undisturbed_run(tmp_path, synthetic_datasets):
    run, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    # Two replicas of one process: a sum of two numbers has the same bits in either order.
    whole = start(undisturbed, synthetic_datasets)
    # SIGTERM on the worker that does not write: both stop at the same step, which is saved.
    workers = start_two(run, synthetic_datasets)
    wait_for_row(run, 20, workers)
    workers[1].send_signal(signal.SIGTERM)
    codes, errors = finish(workers)
    assert codes == [42, 42], errors
    assert errors[0].startswith("another worker was asked to stop: saved at")
    assert errors[1].startswith("SIGTERM: saved at")
    stopped_at = checkpoints.list_checkpoints(str(run / "checkpoints"))[-1]
    assert all(f"saved at {stopped_at} of {TOTAL}" in error for error in errors)
    assert 20 <= stopped_at < 80

    workers = start_two(run, synthetic_datasets)
    wait_for_row(run, 90, workers)
    workers[0].kill()
    began = time.monotonic()
    _, errors = finish(workers)
    assert_ended_for_want_of_another(workers[1], errors[1], began)
    saved = checkpoints.list_checkpoints(str(run / "checkpoints"))[-1]
    assert 80 < saved < TOTAL  # else nothing was disturbed

    codes, errors = finish([*start_two(run, synthetic_datasets), whole])
    assert codes == [0, 0, 0], errors
    found, expected = variables(run), variables(undisturbed)
    assert found.keys() == expected.keys() and len(found) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_the_chief_ends_without_the_other(tmp_path, synthetic_datasets, number):
    """A worker that is stopped keeps its connections open, so that only its heartbeat is missing."""
    workers = start_two(tmp_path, synthetic_datasets, params=["TOTAL_EXAMPLES = 4000"])
    wait_for_row(tmp_path, 20, workers)
    workers[1].send_signal(number)
    began = time.monotonic()
    try:
        _, (error,) = finish(workers[:1], within_sec=60)
        assert_ended_for_want_of_another(workers[0], error, began)
    finally:
        workers[1].kill()
        workers[1].communicate()


@pytest.mark.soak
def test_memory_that_runs_out_on_one_worker_ends_both_and_the_next_start_takes_less(
    tmp_path, synthetic_datasets
):
    params = ["BATCH_SCHEDULE = 6"]
    workers = start_two(tmp_path, synthetic_datasets, program=("-c", OUT_OF_MEMORY), params=params)
    workers[1].wait(timeout=300)
    began = time.monotonic()
    codes, errors = finish(workers)
    assert codes == [42, 42]
    assert_ended_for_want_of_another(workers[0], errors[0], began)
    assert errors[1].count("\n") == 1
    assert "out of memory at 30 examples with micro-batches of 3" in errors[1]
    assert "the next start computes on 1" in errors[1]
    codes, errors = finish(start_two(tmp_path, synthetic_datasets, params=params))
    assert codes == [0, 0], errors
    assert '"accumulation": 3' in (tmp_path / "train.jsonl").read_text()
