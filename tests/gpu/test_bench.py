"""The comparison on a GPU, as far as a CPU can show: it runs, counts by turns, and ends in time."""

import json
import os
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tests.benchmarks.training_step.on_gpu import CASES, Runner, measure, runners, started

PROGRAM = "tests.benchmarks.training_step.on_gpu"

SERVES = """
import sys, time
sys.path.insert(0, ".")
from tests.benchmarks.training_step.peer_protocol import serve
serve(lambda: time.sleep({sec}), flop_of_step={flop}, peak_bytes=lambda: 7 * 2**20, warm_up_steps=1)
"""


def sleeper(name, sec, *, steps=1, calls=1, flop=0.0):
    code = SERVES.format(sec=sec, flop=flop)
    command = [sys.executable, "-c", code]
    return Runner(name=name, command=command, precision="float32", steps=steps, calls=calls)


def test_without_a_gpu_it_says_so_in_one_line():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("bench-gpu: TensorFlow finds no GPU") and done.stderr.count("\n") == 1


def test_rates_and_the_floor_by_hand():
    # A call of the engine is 10 steps in 0.2 s; PyTorch is called 10 times a turn, for 0.04 s each. The floor
    # is 1e6 FLOP in 0.1 s, and a step has 1e5: half of the 0.02 s of the engine's step.
    engine = sleeper("engine", 0.2, steps=10, flop=1e5)
    torch = sleeper("torch", 0.04, calls=10)
    floor = sleeper("product float32", 0.1, flop=1e6)
    end = time.monotonic() + 60
    with started([floor], until=end) as floors:
        rows = measure(CASES[1], [engine, torch], floors, rounds=2, until=end)
    assert [row["peer"] for row in rows] == ["engine", "torch"]
    assert rows[0]["sec"] == pytest.approx(0.02, rel=0.2)
    assert rows[0]["speed"] == pytest.approx(2.0, rel=0.2)
    assert rows[0]["base"] == "torch"
    assert rows[0]["floor_share"] == pytest.approx(0.5, rel=0.2)
    assert rows[0]["examples_per_sec"] == pytest.approx(16 / 0.02, rel=0.2)
    assert rows[1]["peak_bytes"] == 7 * 2**20


def test_who_does_not_start_in_time_is_left_out(capfd):
    began = time.monotonic()
    missing = Runner(
        name="missing", command=[sys.executable, "-c", "raise SystemExit(3)"], precision="float32"
    )
    with started([missing, sleeper("slow", 30.0), sleeper("late", 0.0)], until=began + 3) as peers:
        assert not peers
    assert time.monotonic() - began < 15
    said = capfd.readouterr().err
    assert "missing: left out, ended as it started" in said
    assert "slow: left out, no time was left" in said
    assert "late: left out, no time was left" in said


def test_every_peer_of_a_gpu_has_its_precision_and_device():
    found = {each.name: each for each in runners(CASES[0], device="gpu", torch_python="T", steps=20)}
    assert len(found) == 9
    for name, each in found.items():
        assert each.precision == next((p for p in ("bfloat16", "float16") if p in name), "float32")
        assert each.steps * each.calls == 20
        line = " ".join(each.command)
        if name.startswith("torch"):
            assert each.command[0] == "T" and "--device=cuda" in line
        if name.startswith("engine"):
            assert ("JIT_COMPILE = True" in line) == ("XLA" in name)
    without = runners(CASES[2], device="gpu", torch_python=None, steps=20)
    assert {each.name.split()[0] for each in without} == {"engine"}  # no tutorial of CycleGAN


@pytest.mark.soak
def test_a_dry_run(tmp_path):
    flags = ["--device=cpu", "--cases=quickstart-4", "--rounds=2", f"--output={tmp_path}", "--minutes=5"]
    if os.environ.get("GANTRY_TORCH_PYTHON"):
        flags.append(f"--torch_python={os.environ['GANTRY_TORCH_PYTHON']}")
    done = subprocess.run([sys.executable, "-m", PROGRAM, *flags], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in open(tmp_path / "training_step_gpu.jsonl", encoding="utf-8")]
    assert {"engine", "engine XLA", "engine bfloat16", "engine float16"} <= {row["peer"] for row in rows}
    assert all(row["sec"] > 0 and row["floor_share"] > 0 for row in rows)
    assert done.stdout.count("| quickstart-4 |") == len(rows)
