"""How much `engine.train` in full costs over its own compiled step on a constant batch."""

import dataclasses
import sys
from collections.abc import Iterator

import numpy as np

from tests.benchmarks.recorded_ratios import Row
from tests.benchmarks.training_step.compare import ENGINE
from tests.benchmarks.training_step.peers import Peer, command_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and in turns of how many steps; a turn takes some seconds."""

    name: str
    gin_file: str
    size: int
    batch: int
    steps: int
    actions_every: int  # examples between samples or checkpoints in the gin file


CASES = (
    Case(name="pix2pix-256", gin_file="gin/pix2pix.gin", size=256, batch=1, steps=8, actions_every=4000),
    Case(name="quickstart-64", gin_file="gin/quickstart.gin", size=64, batch=4, steps=60, actions_every=500),
)


def measure(*, rounds: int) -> Iterator[Row]:
    """Rows of the cases as they are measured: the two peers make their turns one after the other."""
    for case in CASES:
        yield _measure_case(case, rounds=2 * ((rounds + 1) // 2))


def _measure_case(case: Case, *, rounds: int) -> Row:
    gin_file = f"--gin_file={case.gin_file}"
    size = [f"--size={case.size}", f"--batch={case.batch}"]
    turn = f"--turn_examples={case.steps * case.batch}"
    steps, runs = [], []
    step = Peer(command_of("engine_peer", gin_file, *size))
    run = Peer([sys.executable, "-m", "tests.benchmarks.whole_run.run_peer", gin_file, turn])
    try:
        step.wait()
        run.wait()
        for _ in range(rounds):
            # Half a turn before and half after: what changes slowly on the machine cancels.
            before = step.run(case.steps // 2)["sec"]
            runs.append(run.run(case.steps))
            steps.append((before + step.run(case.steps // 2)["sec"]) / 2)
    finally:
        step.close()
        run.close()
    sec = np.array([turn["sec"] for turn in runs])
    saved = np.array([bool(turn["saved"]) for turn in runs])
    loop = float(np.median(sec[~saved] / np.array(steps)[~saved]))
    step_sec = float(np.median(steps))
    # A turn saves far more often than the gin file, so what one save with samples costs is counted apart.
    save_sec = float(np.median(sec[saved] / np.array(steps)[saved]) - loop) * step_sec * case.steps
    whole = loop + save_sec / (case.actions_every / case.batch * step_sec)
    return {
        "table": "overhead",
        "case": case.name,
        "peer": f"{ENGINE}.train",
        "base": "compiled step",
        "speed": 1 / whole,
        "overhead": whole - 1,
        "loop_overhead": loop - 1,
        "save_and_sample_sec": save_sec,
        "step_sec": step_sec,
    }
