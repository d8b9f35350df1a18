"""CycleGAN with its image pool on two worker processes: replicas and restarts change nothing."""

import itertools
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from engine.launch import tf_configs
from engine.storage import checkpoints
from engine.storage.run_directory import read_rows
from tests.helpers.killing import (
    GIN_FILE,
    VOLATILE,
    ForkedProgram,
    assert_each_example_once,
    differences,
    variables,
)
from tests.helpers.runs import WGAN_GP
from tests.helpers.small_cyclegan.made_up_images import prepare_made_up_images

TOTAL = 34
# 3 examples on two workers are (2, 1); of one the second has none; 5 are two micro-batches, (2, 2) and
# (1, 0), where one process has three. The pool of six fills, then swaps.
GROWING = (
    "BATCH_SCHEDULE = '0:3, 12:1, 14:5'",
    "LARGEST_MICRO_BATCH = 2",
    f"TOTAL_EXAMPLES = {TOTAL}",
    "SAVE_EVERY = 5",
    "SAMPLE_EVERY = 0",
    "PRECISION = 'float64'",
)
# The run of the tests below ends early at TOTAL: of its evaluations at 19 and 34 the second is no better.
EARLY_END = (
    "TOTAL_EXAMPLES = 50",
    f"small_cyclegan.SmallCycleGan.noted = {TOTAL}",
    "EVALUATE_EVERY = 17",
    "experiment.Experiment.best_metric = 'cycle_input_psnr_db'",
    "early_stopping.EarlyStopping.patience = 15",
    "early_stopping.EarlyStopping.minimum_change = 100.0",
    "early_stopping.EarlyStopping.smoothing = @smoothing.Exponential()",
)
GIN_FILES = (GIN_FILE, "gin/early_stopping.gin")


@pytest.fixture(scope="module")
def made_up_images(tmp_path_factory):
    return prepare_made_up_images(str(tmp_path_factory.mktemp("made_up")))


@pytest.fixture(scope="module")
def programs():
    """Two processes from which the workers are forked: each imports TensorFlow once for all trainings."""
    programs = ForkedProgram(), ForkedProgram()
    try:
        yield programs
    finally:
        for program in programs:
            program.close()


@pytest.fixture(scope="module")
def start(programs, made_up_images):
    """Function: starts a training; returns its processes, the chief first."""

    def start(
        workdir, data_dir=made_up_images, *, workers=1, params=GROWING + EARLY_END, gin_files=GIN_FILES
    ):
        arguments = [f"--workdir={workdir}", *(f"--gin_file={path}" for path in gin_files)]
        arguments += [f"--gin_param={param}" for param in params]
        data_dirs = itertools.repeat(data_dir) if isinstance(data_dir, str) else data_dir
        places = [{"TF_CONFIG": config} for config in tf_configs(workers)] if workers > 1 else [{}]
        started = programs[: len(places)]
        for index, (program, place, own) in enumerate(zip(started, places, data_dirs, strict=False)):
            program.start([*arguments, f"--gin_param=DATA_DIR = {own!r}"], output_of(workdir, index), place)
        return started

    return start


@pytest.fixture(scope="module")
def on_two_workers(tmp_path_factory, start):
    """A run on two workers that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("two_workers")
    finish(workdir, start(workdir, workers=2))
    return workdir


def output_of(workdir, index):
    """The file of what a worker printed, beside the run."""
    return f"{workdir}.worker_{index}.txt"


def finish(workdir, processes, *, code=0):
    """Waits for all, which end with `code`; what was killed may end as it does."""
    codes = [process.wait() for process in processes]
    outputs = [Path(output_of(workdir, index)).read_text() for index in range(len(processes))]
    assert set(codes) <= {code, -signal.SIGKILL} and code in codes, (codes, outputs)


def wait_for_row(workdir, examples, processes):
    log = str(workdir / "train.jsonl")
    while not any(row["examples"] >= examples for row in read_rows(log)):
        assert not any(process.has_ended() for process in processes), Path(output_of(workdir, 0)).read_text()
        time.sleep(0.01)


def assert_equal(found, expected, *, rtol=0.0, atol=1e-8):
    """Losses, metrics and final state of two runs, integers exactly."""
    for log in ("train.jsonl", "eval.jsonl"):
        rows, others = (read_rows(str(run / log)) for run in (found, expected))
        assert [row["examples"] for row in rows] == [row["examples"] for row in others]
        for row, other in zip(rows, others, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() - VOLATILE:
                if name.startswith(("loss/", "metric/", "grad_norm/", "learning_rate/")):
                    np.testing.assert_allclose(row[name], other[name], rtol=rtol, atol=atol, err_msg=name)
    total = read_rows(str(expected / "train.jsonl"))[-1]["examples"]
    states = [variables(str(run), total) for run in (found, expected)]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 20
    for name, value in states[1].items():
        tolerance = {"rtol": rtol, "atol": atol} if value.dtype.kind == "f" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(states[0][name], value, **tolerance, err_msg=name)


def test_two_workers_equal_one_process(tmp_path, start, on_two_workers):
    finish(tmp_path, start(tmp_path))
    rows = read_rows(str(on_two_workers / "train.jsonl"))
    assert [(row["replicas"], row["accumulation"]) for row in rows] == [(2, 1)] * 6 + [(2, 2)] * 4
    assert_equal(on_two_workers, tmp_path)
    assert "stopped early at 34 of 50 examples" in (on_two_workers / "DONE").read_text()
    state = variables(str(on_two_workers), TOTAL)
    assert_each_example_once(state["task/drawn"])
    assert state["task/input_pool_stored"] == 6 and state["task/input_pool_images"].any(axis=(1, 2, 3)).all()


def test_two_workers_killed_go_on_as_if_nothing_had_been(tmp_path, start, on_two_workers):
    """The chief is killed as the batch changes; the other ends by itself."""
    workers = start(tmp_path, workers=2)
    wait_for_row(tmp_path, 12, workers)
    workers[0].kill()
    finish(tmp_path, workers, code=42)
    assert (
        checkpoints.list_checkpoints(str(tmp_path / "checkpoints"))[-1] < TOTAL
    )  # else nothing was disturbed
    finish(tmp_path, start(tmp_path, workers=2))
    assert differences(str(tmp_path), str(on_two_workers)) == []


@pytest.mark.soak
def test_two_workers_that_recompute_equal_one_process_that_keeps_activations(tmp_path, start):
    """With batch norm: its sums over both workers are not made again with the activations."""
    params = (
        "NORM = 'batch'",
        "BATCH_SCHEDULE = 3",
        "TOTAL_EXAMPLES = 9",
        "EVALUATE_EVERY = 0",
        "SAMPLE_EVERY = 0",
        "PRECISION = 'float64'",
    )
    for workers, recompute in ((2, True), (1, False)):
        workdir = tmp_path / str(workers)
        settings = {"params": (*params, f"RECOMPUTE = {recompute}"), "gin_files": (GIN_FILE,)}
        finish(workdir, start(workdir, workers=workers, **settings))
    assert [row["replicas"] for row in read_rows(str(tmp_path / "2/train.jsonl"))] == [2] * 3
    assert_equal(tmp_path / "2", tmp_path / "1")


@pytest.mark.soak
@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_two_workers_stopped_at_every_few_steps(tmp_path, start, on_two_workers, worker, number):
    """While the pool fills, at both boundaries of the batch, among accumulated steps."""
    for examples in (3, 12, 14, 24):
        workers = start(tmp_path, workers=2)
        wait_for_row(tmp_path, examples, workers)
        workers[worker].send_signal(number)
        finish(tmp_path, workers, code=42)
    finish(tmp_path, start(tmp_path, workers=2))
    assert differences(str(tmp_path), str(on_two_workers)) == []


@pytest.mark.soak
@pytest.mark.parametrize("workers", [(1, 2), (2, 1)], ids=["one_then_two", "two_then_one"])
def test_another_number_of_workers_takes_the_same_examples(tmp_path, start, on_two_workers, workers):
    first, then = workers
    processes = start(tmp_path, workers=first)
    wait_for_row(tmp_path, 13, processes)
    processes[0].send_signal(signal.SIGTERM)
    finish(tmp_path, processes, code=42)
    finish(tmp_path, start(tmp_path, workers=then))
    rows = read_rows(str(tmp_path / "train.jsonl"))
    assert (rows[0]["replicas"], rows[-1]["replicas"]) == workers
    assert_equal(tmp_path, on_two_workers)


SCHEDULES = {
    "batch_norm": {"params": ("NORM = 'batch'", "LARGEST_MICRO_BATCH = None")},
    "geometric": {
        "gin_files": (GIN_FILE, "gin/schedules/adabatch.gin"),
        "params": (
            "BATCH_SCHEDULE = @batch_schedules.Geometric()",
            "GROW_EVERY = 8",
            "batch_schedules.Geometric.maximum = 8",
            "TOTAL_EXAMPLES = 32",
        ),
    },
    "linear_with_warm_up": {
        "params": ("LEARNING_RATE_RULE = 'linear'", "experiment.Experiment.warmup_after_growth = 6")
    },
    "plateau": {
        "gin_files": (WGAN_GP, "gin/schedules/smith_plateau.gin"),
        "params": (
            "BATCH_SCHEDULE = @adaptive_batch.GrowOnPlateau()",
            "adaptive_batch.GrowOnPlateau.factor = 2.0",
            "adaptive_batch.GrowOnPlateau.patience = 0",
            "adaptive_batch.GrowOnPlateau.minimum_change = 100.0",
            "EVALUATE_EVERY = 6",
            "CPU_REPLICAS = 1",
        ),
    },
}


def test_workers_with_other_copies_of_the_data_are_refused(tmp_path, start, made_up_images):
    other = prepare_made_up_images(str(tmp_path / "other"), fewer=1)
    workdir = tmp_path / "run"
    workers = start(workdir, (made_up_images, other), workers=2)
    finish(workdir, workers, code=2)
    said = [Path(output_of(workdir, index)).read_text().splitlines()[-1] for index in (0, 1)]
    assert "data set: is not the same on all workers (another worker says how)" in said[0]
    assert "that of the chief -> that of this worker: trainA: 10 -> 9 examples; " in said[1]
    assert not (workdir / "checkpoints").exists() and not (workdir / "config.gin").exists()


@pytest.mark.soak
@pytest.mark.parametrize("case", SCHEDULES)
def test_two_workers_equal_one_process_with(tmp_path, start, made_up_images, synthetic_datasets, case):
    settings = {"gin_files": (GIN_FILE,)} | SCHEDULES[case]
    settings["params"] = (*GROWING, *settings["params"])
    data_dir = synthetic_datasets if WGAN_GP in settings["gin_files"] else made_up_images
    finish(tmp_path / "two", start(tmp_path / "two", data_dir, workers=2, **settings))
    finish(tmp_path / "one", start(tmp_path / "one", data_dir, **settings))
    assert_equal(tmp_path / "two", tmp_path / "one")
    rows = read_rows(str(tmp_path / "two/train.jsonl"))
    assert len({row["global_batch"] for row in rows}) > 2
