"""A sweep in processes that are killed, stopped, shared and that fail; most of them train nothing.

The stand-in for engine.train below keeps what a run is made of: its lock, its rows, its exit codes.
"""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from engine.errors import ConfigurationError, RunsFailedError
from engine.storage.run_directory import read_rows
from engine.sweep import sweep
from tests.helpers.runs import WGAN_GP

STAND_IN = """
import fcntl, json, os, signal, sys, time
flags = [argument[2:].split("=", 1) for argument in sys.argv[1:]]
run = dict(flags)["workdir"]
values = dict(value.split(" = ") for name, value in flags if name == "gin_param")
batch, seed = int(values["BATCH_SCHEDULE"]), int(values["SEED"])
lock = open(f"{run}/lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if two train the same run
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
with open(f"{run}/starts", "a") as file:
    file.write(f"{os.getpid()}\\n")
if values.get("LEARNING_RATE") == f"{batch}.{seed}":
    sys.exit("diverged in step 1") if "mended" not in os.listdir(os.path.dirname(run)) else None
done = len(open(f"{run}/train.jsonl").readlines()) if os.path.exists(f"{run}/train.jsonl") else 0
for step in range(done + 1, 11):
    time.sleep(0.02)
    while step == 5 and os.path.exists(f"{run}.hold") and not stopped:
        time.sleep(0.005)
    with open(f"{run}/train.jsonl", "a") as file:
        file.write(json.dumps({"examples": 10 * step, "step": step, "examples_per_sec": 5.0}) + "\\n")
    if stopped:
        print("saved", file=sys.stderr)
        sys.exit(42)
with open(f"{run}/eval.jsonl", "a") as file:
    row = {"examples": 100, "split": "val", "metric/psnr_db": 10.0 * batch + seed, "metric/ssim": 0.5}
    file.write(json.dumps(row) + "\\n")
with open(f"{run}/DONE", "w") as file:
    file.write('{"examples": 100}')
"""

# Imports everything once, then starts sweeps in processes forked from it. No operation of TensorFlow has run.
FORK = """
import json, os, sys
from engine import sweep
from engine.sweeps import sweep as processes
from models import pix2pix  # which the gin file imports
processes._TRAIN = "stand_in"
sweep.write_plots = lambda *arguments: []  # the report's own tests make them
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        nowhere, output = os.open(os.devnull, os.O_RDONLY), os.open(order["output"], os.O_WRONLY | os.O_CREAT)
        for number, descriptor in enumerate((nowhere, output, output)):
            os.dup2(descriptor, number)
        sys.argv = [sweep.__file__, *order["arguments"]]
        sweep.run()
    print(child, flush=True)
"""
BATCHES, SEEDS = (1, 2), (3, 4, 5)
NAMES = [f"BATCH_SCHEDULE={batch},SEED={seed}" for batch in BATCHES for seed in SEEDS]


class Sweeps:
    """Starts sweeps of 2 x 3 runs."""

    def __init__(self, folder, datasets):
        (folder / "stand_in.py").write_text(STAND_IN)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()])}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FORK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )
        self._datasets = datasets

    def start(self, workdir, output, *params):
        params = [f"DATA_DIR = {self._datasets!r}", "TOTAL_EXAMPLES = 100", *params]
        arguments = [
            "--gin_file=gin/quickstart.gin",
            f"--workdir={workdir}",
            f"--grid=BATCH_SCHEDULE = {list(BATCHES)}",
            f"--grid=SEED = {list(SEEDS)}",
            *(f"--gin_param={param}" for param in params),
        ]
        return self._ask(output=str(output), arguments=arguments)

    def wait(self, pid):
        """The exit code, -n if signal n ended it."""
        return self._ask(wait=pid)

    def run(self, workdir, output, *params):
        return self.wait(self.start(workdir, output, *params)), output.read_text()

    def close(self):
        self._parent.kill()
        self._parent.wait()

    def _ask(self, **order):
        self._parent.stdin.write(json.dumps(order).encode() + b"\n")
        return int(self._parent.stdout.readline())


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory, synthetic_datasets):
    made = Sweeps(tmp_path_factory.mktemp("stand_in"), synthetic_datasets)
    yield made
    made.close()


def wait_until(holds, within_sec=60):
    end = time.monotonic() + within_sec
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def positions(workdir, name):
    return [row["examples"] for row in read_rows(f"{workdir}/{name}/train.jsonl")]


def starts(workdir):
    """The processes that have trained each run."""
    return {
        name: (workdir / name / "starts").read_text().split()
        for name in NAMES
        if (workdir / name / "starts").exists()
    }


def is_alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def table(workdir):
    with open(workdir / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_all_complete(workdir):
    """Six runs, each step of each once, and a table of what they have written."""
    assert sorted(path.name for path in workdir.iterdir() if path.is_dir()) == [".sweep", *NAMES]
    for name in NAMES:
        assert positions(workdir, name) == list(range(10, 101, 10))
    expected = [(str(b), str(s), "complete", "100", 10.0 * b + s) for b in BATCHES for s in SEEDS]
    rows = table(workdir)
    keys = ("BATCH_SCHEDULE", "SEED", "state", "examples")
    assert [(*(row[key] for key in keys), float(row["psnr_db"])) for row in rows] == expected
    assert [row["run"] for row in rows] == NAMES


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_killed_and_stopped_in_the_middle_and_started_again(sweeps, tmp_path):
    workdir = tmp_path / "sweep"
    workdir.mkdir()
    holds = [workdir / f"{NAMES[number]}.hold" for number in (1, 3)]
    for hold in holds:  # so that these runs are in the middle however slow this process is
        hold.touch()
    first = sweeps.start(workdir, tmp_path / "1.txt")
    wait_until(lambda: len(positions(workdir, NAMES[1])) > 3)
    os.kill(first, signal.SIGKILL)
    assert sweeps.wait(first) == -signal.SIGKILL
    wait_until(lambda: not is_alive(starts(workdir)[NAMES[1]][0]))
    assert len(positions(workdir, NAMES[1])) == 4
    holds[0].unlink()

    second = sweeps.start(workdir, tmp_path / "2.txt")
    wait_until(lambda: len(positions(workdir, NAMES[3])) > 2)
    os.kill(second, signal.SIGTERM)
    assert sweeps.wait(second) == 42
    said = (tmp_path / "2.txt").read_text()
    assert "saved" in said and said.endswith("the sweep was interrupted; the same command continues it\n")
    assert [row["state"] for row in table(workdir)] == ["complete"] * 3 + ["stopped", "waiting", "waiting"]
    holds[1].unlink()

    code, said = sweeps.run(workdir, tmp_path / "3.txt")
    assert code == 0
    assert_all_complete(workdir)
    assert {name: len(own) for name, own in starts(workdir).items()} == {
        name: 2 if name in (NAMES[1], NAMES[3]) else 1 for name in NAMES
    }
    lines = (workdir / "table.txt").read_text().splitlines()
    assert lines[0].split() == "BATCH_SCHEDULE SEED state examples PSNR dB SSIM examples/s".split()
    assert [line.split()[:5] for line in lines[1:]] == [
        [str(b), str(s), "complete", "100", f"{10 * b + s:.2f}" + "*" * (b == 2 and s == 5)]
        for b in BATCHES
        for s in SEEDS
    ]
    assert {"by_BATCH_SCHEDULE.png", "by_SEED.png"} <= set(os.listdir(workdir))
    # Complete: nothing is started again.
    assert sweeps.run(workdir, tmp_path / "4.txt")[0] == 0
    assert sum(len(own) for own in starts(workdir).values()) == 8


def test_processes_share_the_runs(sweeps, tmp_path):
    workdir = tmp_path / "sweep"
    pids = [sweeps.start(workdir, tmp_path / f"{n}.txt") for n in range(3)]
    assert [sweeps.wait(pid) for pid in pids] == [0, 0, 0]
    assert_all_complete(workdir)
    assert Counter(len(own) for own in starts(workdir).values()) == {1: 6}
    said = "".join((tmp_path / f"{n}.txt").read_text() for n in range(3))
    assert all(said.count(f" of 6: {name}\n") == 1 for name in NAMES)


def test_a_run_that_fails_is_named_and_the_others_are_complete(sweeps, tmp_path):
    workdir, bad = tmp_path / "sweep", NAMES[4]
    code, said = sweeps.run(workdir, tmp_path / "1.txt", "LEARNING_RATE = 2.4")
    assert code == 1 and f"1 of 6 runs failed: {bad} (diverged in step 1)" in said.splitlines()[-1]
    assert [row["state"] for row in table(workdir)] == ["complete"] * 4 + ["failed", "complete"]
    assert table(workdir)[4]["detail"] == "diverged in step 1" and table(workdir)[4]["psnr_db"] == ""
    (workdir / "mended").touch()
    assert sweeps.run(workdir, tmp_path / "2.txt", "LEARNING_RATE = 2.4")[0] == 0
    assert_all_complete(workdir)


def test_runs_are_trained_in_earnest_and_bad_ones_refused_first(synthetic_datasets, tmp_path, capfd):
    """One run cannot work, which is known before the other is trained; then one that has other settings."""
    settings = {
        "gin_files": [WGAN_GP],
        "workdir": str(tmp_path / "sweep"),
        "gin_params": [f"DATA_DIR = {synthetic_datasets!r}", "TOTAL_EXAMPLES = 3", "CPU_REPLICAS = 1"],
        "grids": ["BATCH_SCHEDULE = [1000, 3]"],
    }
    with pytest.raises(ConfigurationError, match="has no split 'tset'; choose one of train, val, test"):
        sweep(**settings | {"grids": ["BATCH_SCHEDULE = [3]"]}, split="tset")
    assert not os.path.exists(tmp_path / "sweep")
    with pytest.raises(
        RunsFailedError, match=r"1 of 2 runs failed: BATCH_SCHEDULE=1000 \(.*400 training"
    ) as error:
        sweep(**settings)
    assert error.value.code == 2
    rows = table(tmp_path / "sweep")
    assert [row["state"] for row in rows] == ["refused", "complete"]
    evaluated = read_rows(str(tmp_path / "sweep" / "BATCH_SCHEDULE=3" / "eval.jsonl"))[-1]
    assert float(rows[1]["ssim"]) == evaluated["metric/ssim"]
    assert "run 2 of 2: BATCH_SCHEDULE=3\n" in capfd.readouterr().out
    settings |= {"grids": ["BATCH_SCHEDULE = [3]"], "gin_params": [*settings["gin_params"], "SEED = 1"]}
    with pytest.raises(ConfigurationError, match="was trained with other settings .*Experiment.seed: 0 -> 1"):
        sweep(**settings)
