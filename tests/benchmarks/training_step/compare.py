"""Compares a training step of this project with others on the same cores, side by side.

python -m tests.benchmarks.training_step.compare [--torch_python=PYTHON] [--cases=pix2pix-1,quickstart-4]
    [--rounds=9] [--output=runs/bench] [--check]

Each peer is a process of its own. All peers of a case are alive at once and make steps by turns, so that
other work on the machine disturbs all alike: read ratios, not times. The floor is the FLOP of a step at the
rate of a large matrix product, measured by turns too. --torch_python names a Python that has torch; without
it those peers are left out. Writes one JSON line a result to OUTPUT/training_step.jsonl. --check compares the
ratios with those of `recorded.json` and fails if one is more than 15 % below it.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RECORDED = HERE / "recorded.json"
LARGEST_FALL = 0.15

ENGINE, TUTORIAL, TORCH, PRODUCT = "engine", "tutorial", "torch", "product"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is compared: a task with its picture size and batch."""

    task: str
    size: int
    batch: int

    @property
    def name(self) -> str:
        """Names it on the command line and in results."""
        return f"{self.task}-{self.batch}"

    def commands(self, torch_python: str | None) -> dict[str, list[str]]:
        """The command of each peer, by its name."""
        engine = [f"--gin_file=gin/{self.task}.gin", f"--size={self.size}", f"--batch={self.batch}"]
        commands = {
            PRODUCT: command_of("product_peer"),
            ENGINE: command_of("engine_peer", *engine),
            f"{ENGINE} bfloat16": command_of("engine_peer", *engine, '--gin_param=PRECISION = "bfloat16"'),
        }
        if self.task == "pix2pix":
            commands[TUTORIAL] = command_of("tutorial_peer", f"--batch={self.batch}")
        if torch_python:
            threads = len(os.sched_getaffinity(0))
            torch = [f"--task={self.task}", f"--threads={threads}", *engine[1:]]
            commands[TORCH] = command_of("torch_peer", *torch, python=torch_python)
            commands[f"{TORCH} bfloat16"] = command_of(
                "torch_peer", *torch, "--bfloat16", python=torch_python
            )
        return commands


CASES = tuple(
    Case(task=task, size=size, batch=batch)
    for task, size, batches in (
        ("pix2pix", 256, (1, 4, 8)),
        ("cyclegan", 256, (1, 4, 8)),
        ("quickstart", 64, (4,)),
    )
    for batch in batches
)


class Peer:
    """A running peer.

    Args:
      command: starts it.
      within_sec: it is ended if it has not made its first steps by then.

    Raises:
      RuntimeError: it ended before its first step; its own message is on stderr.
    """

    def __init__(self, command: Sequence[str], *, within_sec: float = threading.TIMEOUT_MAX):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
        )
        timer = threading.Timer(within_sec, self._process.kill)
        timer.start()
        try:
            self.flop = float(self._read()["flop"])
        finally:
            timer.cancel()

    def run(self, steps: int) -> dict[str, float]:
        """Makes steps: their mean seconds and processor seconds, and the peak memory so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{' '.join(map(str, self._process.args))}: ended")  # type: ignore[arg-type]


def measure(case: Case, *, torch_python: str | None, rounds: int) -> list[dict[str, float | str]]:
    """Runs the peers of a case by turns.

    Returns:
      A row for each peer. "speed" is the median over the rounds of how many times its examples a second are
      those of PyTorch in float32, or of this project without PyTorch.
    """
    with _peers(case.commands(torch_python)) as peers:
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
        for turn in range(rounds):
            for name in sorted(peers, reverse=turn % 2 == 1):
                turns[name].append(peers[name].run(1))
        flop = {name: peer.flop for name, peer in peers.items()}
    sec = {name: np.array([turn["sec"] for turn in found]) for name, found in turns.items()}
    flop_per_sec = flop[PRODUCT] / np.median(sec.pop(PRODUCT))
    base = TORCH if TORCH in sec else ENGINE
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, float | str]] = []
    for name, found in sec.items():
        processor = np.array([turn["processor_sec"] for turn in turns[name]])
        rows.append(
            {
                "case": case.name,
                "peer": name,
                "sec": float(np.median(found)),
                "examples_per_sec": case.batch / float(np.median(found)),
                "speed": float(np.median(sec[base] / found)),
                "base": base,
                "cores_busy": float(np.median(processor / found)) / cores,
                "floor_share": float(flop[name] / flop_per_sec / np.median(found)),
                "peak_bytes": max(turn["peak_bytes"] for turn in turns[name]),
                "product_flop_per_sec": float(flop_per_sec),
            }
        )
    return rows


@contextlib.contextmanager
def _peers(commands: dict[str, list[str]]) -> Iterator[dict[str, Peer]]:
    peers: dict[str, Peer] = {}
    try:
        for name, command in commands.items():
            peers[name] = Peer(command)
        yield peers
    finally:
        for peer in peers.values():
            peer.close()


def table(rows: Sequence[dict[str, float | str]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| Case | Peer | s a step | Examples/s | Times the base's | Cores busy | Of the floor | Peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        floor = f"{row['floor_share']:.0%}" if row["floor_share"] else ""
        lines.append(
            f"| {row['case']} | {row['peer']} | {row['sec']:.3f} | {row['examples_per_sec']:.2f} | "
            f"{row['speed']:.2f} ({row['base']}) | {row['cores_busy']:.0%} | {floor} | "
            f"{float(row['peak_bytes']) / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def falls(rows: Sequence[dict[str, float | str]], recorded: dict[str, float]) -> list[str]:
    """Says which speeds of this project are more than `LARGEST_FALL` below the recorded ones, or unknown."""
    found = []
    for row in rows:
        key = _key(row)
        if ENGINE not in str(row["peer"]):
            continue
        if key not in recorded:
            found.append(f"{key}: nothing is recorded; run with --record where it is quiet")
        elif float(row["speed"]) < (1 - LARGEST_FALL) * recorded[key]:
            found.append(f"{key}: {row['speed']:.2f}, recorded {recorded[key]:.2f}")
    return found


def _key(row: dict[str, float | str]) -> str:
    return f"{row['case']}: {row['peer']} / {row['base']}"


def command_of(module: str, *flags: str, python: str = sys.executable) -> list[str]:
    """The command that starts a peer."""
    return [python, "-m", f"tests.benchmarks.training_step.{module}", *flags]


def main() -> None:
    """Runs the program from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", default="runs/bench")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true", help="write recorded.json")
    options = parser.parse_args()
    wanted = options.cases.split(",")
    cases = [case for case in CASES if case.name in wanted]
    if len(cases) != len(wanted):
        parser.error(f"--cases={options.cases}: use some of {', '.join(case.name for case in CASES)}")
    os.makedirs(options.output, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    rows = []
    with open(os.path.join(options.output, "training_step.jsonl"), "a", encoding="utf-8") as results:
        for case in cases:
            rows += measure(case, torch_python=options.torch_python, rounds=options.rounds)
            results.writelines(json.dumps(row) + "\n" for row in rows if row["case"] == case.name)
            results.flush()
            print(f"measured {case.name}", file=sys.stderr)
    print(table(rows))
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    if options.record:
        recorded |= {_key(row): round(float(row["speed"]), 3) for row in rows if ENGINE in str(row["peer"])}
        RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    if options.check and (found := falls(rows, recorded)):
        sys.exit("not as recorded: " + "; ".join(found))


if __name__ == "__main__":
    main()
