"""Invariant 3: interrupted anywhere, a run ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

from engine.adaptive_batch import GrowByNoiseScale, GrowOnPlateau
from engine.errors import ConfigurationError, RunInterruptedError
from engine.schedules import ReduceOnPlateau
from engine.storage import checkpoints
from engine.storage.run_directory import append_row, read_rows
from engine.task import Adam
from tests.helpers.runs import WGAN_GP, stop_at, variables

VOLATILE = {
    "examples_per_sec",
    "sec_per_step",
    "data_wait_fraction",
    "host_memory_bytes",
    "time_unix",
}
SETTINGS = {
    "batch_schedule": "0:2, 6:3",
    "total_examples": 18,
    "save_every": 5,
    "evaluate_every": 6,
    "sample_every": 100,
    "keep_checkpoints": 2,
}


def logs(trainer):
    run = trainer.run_directory
    return [
        [{k: v for k, v in row.items() if k not in VOLATILE} for row in read_rows(path)]
        for path in (run.train_log, run.eval_log)
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        # Accumulated, on two replicas, into a warm-up that a second growth interrupts.
        {
            "batch_schedule": "0:4, 4:6, 10:8",
            "largest_micro_batch": 1,
            "cpu_replicas": 2,
            "total_examples": 26,
            "learning_rate_rule": "linear",
            "warmup_after_growth": 7,
            "warmup": 9,
            "recompute": True,
        },
        # Grown by the noise scale, whose estimate goes through the checkpoint.
        {
            "batch_schedule": GrowByNoiseScale(start=1, maximum=4, phase="generator", every=4, target=100.0),
            "noise_scale_smoothing": 0.5,
        },
        # Grown, and the learning rate of the generator lowered, on a plateau.
        {
            "batch_schedule": GrowOnPlateau(start=1, maximum=4, patience=0, minimum_change=100.0),
            "evaluate_every": 3,
        },
    ],
)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    make_trainer, noise_pairs, small_pix2pix, tmp_path, settings
):
    settings = SETTINGS | settings
    plateau = ReduceOnPlateau(metric="psnr_db", patience=0, factor=0.5, floor=0.1, minimum_change=100.0)
    task = small_pix2pix(
        generator_optimizer=Adam(schedule=plateau if settings["evaluate_every"] == 3 else None)
    )
    whole = make_trainer(task, noise_pairs(size=32), **settings)
    whole.run()
    rows = logs(whole)[0]
    grown = next(i for i, row in enumerate(rows) if row["global_batch"] > rows[0]["global_batch"])
    workdir = str(tmp_path / "stopped")
    # In the plain case before the boundary where the batch grows; on it; after it.
    for index in range(grown - 2 if settings == SETTINGS else grown - 1, grown + 1):
        position = rows[index]["examples"]
        stopped = make_trainer(task, noise_pairs(size=32), workdir=workdir, **settings)
        stopped.restore()
        stop_at(stopped, position)
        with pytest.raises(RunInterruptedError, match=f"saved at {position} of"):
            stopped.run()
        assert not os.path.exists(stopped.run_directory.done)
    last = make_trainer(task, noise_pairs(size=32), workdir=workdir, **settings)
    assert last.restore() == position
    last.run()
    assert logs(last) == logs(whole)
    for name, value in variables(whole).items():
        np.testing.assert_array_equal(variables(last)[name], value, err_msg=name)
    assert os.path.exists(last.run_directory.done)
    assert checkpoints.list_checkpoints(last.run_directory.checkpoints)[-1] == last.examples


@pytest.mark.soak
def test_killed_run_repeats_from_its_last_checkpoint(make_trainer, noise_pairs, small_pix2pix, tmp_path):
    whole = make_trainer(small_pix2pix(), noise_pairs(size=32), **SETTINGS)
    whole.run()
    workdir = str(tmp_path / "killed")
    killed = make_trainer(small_pix2pix(), noise_pairs(size=32), workdir=workdir, **SETTINGS)

    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        if kwargs["examples"] >= 9:
            raise Killed
        return run(*args, **kwargs)

    run, killed.loop.run = killed.loop.run, die
    with pytest.raises(Killed):
        killed.run()
    with open(killed.run_directory.train_log, "a") as file:
        file.write('{"step": 7, "exam')  # a row cut off in the middle
    left = [f"config.gin.{uuid.uuid4().hex}.tmp", f".writable-{uuid.uuid4().hex}"]
    for name in (*left, "mine.tmp"):
        open(os.path.join(workdir, name), "w").close()
    again = make_trainer(small_pix2pix(), noise_pairs(size=32), workdir=workdir, **SETTINGS)
    assert again.restore() == 6  # the row at 9 lies past it
    again.run()
    assert logs(again) == logs(whole)
    assert set(os.listdir(workdir)) - set(os.listdir(whole.run_directory.path)) == {"mine.tmp"}


def test_damaged_checkpoint_falls_back_to_the_one_before(make_trainer, noise_pairs, small_pix2pix, caplog):
    trainer = make_trainer(small_pix2pix(), noise_pairs(size=32), **SETTINGS)
    trainer.run()
    directory = trainer.run_directory.checkpoints
    before, newest = checkpoints.list_checkpoints(directory)
    data = os.path.join(directory, f"{newest:08d}", "state.data-00000-of-00001")
    with open(data, "r+b") as file:
        file.truncate(os.path.getsize(data) // 2)
    other = make_trainer(
        small_pix2pix(), noise_pairs(size=32), workdir=trainer.run_directory.path, **SETTINGS
    )
    assert other.restore() == before
    assert "trying the one before it" in caplog.text


def test_checkpoint_of_other_networks_is_refused(make_trainer, noise_pairs, small_pix2pix):
    settings = {"total_examples": 1}
    trainer = make_trainer(small_pix2pix(), noise_pairs(size=32), **settings)
    trainer.run()
    no_norm = small_pix2pix(norm="none")
    other = make_trainer(no_norm, noise_pairs(size=32), workdir=trainer.run_directory.path, **settings)
    with pytest.raises(ConfigurationError, match="does not fit the configured networks"):
        other.restore()


def test_a_run_goes_on_with_another_batch_schedule(make_trainer, noise_pairs, small_pix2pix):
    """What only one of them remembers starts afresh, and is left alone when it goes back."""
    settings = {"batch_schedule": 2, "total_examples": 4}
    first = make_trainer(small_pix2pix(), noise_pairs(size=32), **settings)
    first.run()
    workdir = first.run_directory.path
    adaptive = GrowByNoiseScale(start=2, maximum=4, phase="generator", every=4, target=1e6)
    for schedule, total in ((adaptive, 12), (2, 16)):
        settings = {"batch_schedule": schedule, "total_examples": total, "workdir": workdir}
        other = make_trainer(small_pix2pix(), noise_pairs(size=32), **settings)
        assert other.restore() == first.examples
        first = other
        other.run()
    assert [row["global_batch"] for row in logs(other)[0]] == [2, 2, 2, 2, 4, 2, 2]


def test_rows_are_strict_json_and_cut_at_the_resumed_position(tmp_path):
    path = str(tmp_path / "rows.jsonl")
    append_row(path, {"examples": 1, "loss": float("nan")})
    assert read_rows(path) == [{"examples": 1, "loss": None}]


def test_interrupt_key_saves_and_exits_42(tmp_path, synthetic_datasets):
    """The whole program: Ctrl-C in the middle, then the same command finishes the run."""
    command = [
        sys.executable,
        "-m",
        "engine.train",
        f"--gin_file={WGAN_GP}",
        f"--workdir={tmp_path / 'run'}",
        *(
            f"--gin_param={param}"
            for param in (
                f"DATA_DIR = {synthetic_datasets!r}",
                "TOTAL_EXAMPLES = 600",
                "CPU_REPLICAS = 1",
                "EVALUATE_EVERY = 0",
            )
        ),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "train.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 5):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 42, errors
    assert errors.count("\n") == 1 and "the same command continues the run" in errors
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert [row["step"] for row in read_rows(str(log))] == list(range(1, 201))
