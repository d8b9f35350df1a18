"""Ratios that programs of their own measure: the input pipeline, evaluation, translating, growing batches."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence

from tests.benchmarks.recorded_ratios import Row
from tests.benchmarks.training_step.peers import ROOT


def growth() -> list[Row]:
    """What a boundary of the batch schedule costs: a usual step in the time of the first one with a batch."""
    printed = _output("-m", "tests.benchmarks.whole_run.growth_peer")
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [
        {
            "table": "growth",
            "case": f"quickstart-64 to batch {row['batch']}",
            "peer": "first step with a batch",
            "base": "usual step",
            "speed": row["step_sec"] / (row["step_sec"] + row["boundary_sec"]),
            "boundary_sec": row["boundary_sec"],
            "step_sec": row["step_sec"],
            "traces": row["traces"],
        }
        for row in rows
    ]


def data_speed(*, images: str, torch_python: str, rounds: int) -> list[Row]:
    """Images a second of the input pipeline, with each of its settings, over those of PyTorch's loader."""
    flags = [f"--images={images}", f"--torch_python={torch_python}", f"--rounds={rounds}"]
    printed = _output("tests/benchmarks/data_speed.py", *flags)
    rows: list[Row] = []
    own = re.compile(r"^\| gantry(.*?) \| (\d+) \|.*\| ([\d.]+) \|$", re.MULTILINE)
    for settings, rate, ratio in own.findall(printed):
        row: Row = {"table": "data", "case": "facades-256", "peer": f"engine{settings}", "base": "torch"}
        rows.append(row | {"speed": float(ratio), "images_per_sec": float(rate)})
    return rows


def evaluation_speed(*, facades: str, rounds: int) -> list[Row]:
    """Processor time of the generator alone over that of an evaluation."""
    flags = [f"--facades={facades}", f"--rounds={rounds}"]
    printed = _output("tests/benchmarks/evaluation_speed.py", *flags)
    shares = [float(share) / 100 for share in re.findall(r"generator alone .* s \((\d+) %\)", printed)]
    return [_row("evaluation", "facades-256", statistics.median(shares))]


def translate_speed(*, photos: str, rounds: int) -> list[Row]:
    """Wall time of the generator alone over that of `engine.translate`."""
    flags = [f"--photos={photos}", "--pictures=300", f"--rounds={rounds}"]
    printed = _output("tests/benchmarks/translate_speed.py", *flags)
    _, wall = re.findall(r"^ratio +([\d.]+) +([\d.]+)", printed, re.MULTILINE)[-1]
    return [_row("translate", "photos-128", 1 / float(wall))]


def _row(table: str, case: str, speed: float) -> Row:
    return {"table": table, "case": case, "peer": "engine", "base": "generator alone", "speed": speed}


def _output(*command: str) -> str:
    python: Sequence[str] = [sys.executable, *command]
    # A program that is run by its path would import this project from where it is installed.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(python, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout
