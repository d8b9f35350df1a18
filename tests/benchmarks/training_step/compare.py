"""Compares a training step of this project with others on the same cores, side by side.

python -m tests.benchmarks.training_step.compare [--torch_python=PYTHON] [--cases=pix2pix-1,quickstart-4]
    [--rounds=9] [--output=runs/bench] [--check]

Each peer is a process of its own. All peers of a case are alive at once and make steps by turns, so that
other work on the machine disturbs all alike: read ratios, not times. The floor is the FLOP of a step at the
rate of a large matrix product, measured by turns too. --torch_python names a Python that has torch; without
it those peers are left out, and so is one that does not start. Writes one JSON line a result to
OUTPUT/training_step.jsonl. --check compares this project's ratios with those of `tests.benchmarks`'s
`recorded.json` and fails if one is more than 15 % below it; --record writes them there.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from tests.benchmarks.recorded_ratios import Row, falls, read_recorded, record
from tests.benchmarks.training_step.peers import Peer, PeerEndedError, command_of

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


def measure(case: Case, *, torch_python: str | None, rounds: int) -> list[Row]:
    """Runs the peers of a case by turns.

    Returns:
      A row for each peer. "speed" is the median over the rounds of how many times its examples a second are
      those of PyTorch in float32, or of this project without PyTorch.
    """
    with _started(case.commands(torch_python)) as peers:
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
        for turn in range(rounds):
            for name in sorted(peers, reverse=turn % 2 == 1):
                turns[name].append(peers[name].run(1))
    sec = {name: np.array([turn["sec"] for turn in found]) for name, found in turns.items()}
    flop_per_sec = peers[PRODUCT].flop / np.median(sec.pop(PRODUCT))
    base = TORCH if TORCH in sec else ENGINE
    cores = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    for name, found in sec.items():
        processor = np.array([turn["processor_sec"] for turn in turns[name]])
        rows.append(
            {
                "table": "step",
                "case": case.name,
                "peer": name,
                "sec": float(np.median(found)),
                "examples_per_sec": case.batch / float(np.median(found)),
                "speed": float(np.median(sec[base] / found)),
                "base": base,
                "cores_busy": float(np.median(processor / found)) / cores,
                "floor_share": float(peers[name].flop / flop_per_sec / np.median(found)),
                "peak_bytes": max(turn["peak_bytes"] for turn in turns[name]),
                "product_flop_per_sec": float(flop_per_sec),
            }
        )
    return rows


@contextlib.contextmanager
def _started(commands: dict[str, list[str]]) -> Iterator[dict[str, Peer]]:
    """Starts peers one after another."""
    peers: dict[str, Peer] = {}
    try:
        for name, command in commands.items():
            peer = Peer(command)
            try:
                peer.wait()
            except PeerEndedError as error:
                peer.close()
                if name.startswith((ENGINE, PRODUCT)):
                    sys.exit(str(error))
                print(f"{name}: left out, ended as it started", file=sys.stderr, flush=True)
            else:
                peers[name] = peer
        yield peers
    finally:
        for peer in peers.values():
            peer.close()


def table(rows: Sequence[Row]) -> str:
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
    if options.torch_python and not shutil.which(options.torch_python):
        parser.error(f"--torch_python={options.torch_python}: is no program; name a Python that has torch")
    wanted = options.cases.split(",")
    cases = [case for case in CASES if case.name in wanted]
    if len(cases) != len(wanted):
        parser.error(f"--cases={options.cases}: use some of {', '.join(case.name for case in CASES)}")
    os.makedirs(options.output, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    rows = []
    with open(os.path.join(options.output, "training_step.jsonl"), "a", encoding="utf-8") as results:
        for case in cases:
            try:
                rows += measure(case, torch_python=options.torch_python, rounds=options.rounds)
            except PeerEndedError as error:
                sys.exit(f"{case.name}: {error}")
            results.writelines(json.dumps(row) + "\n" for row in rows if row["case"] == case.name)
            results.flush()
            print(f"measured {case.name}", file=sys.stderr)
    print(table(rows))
    own = [row for row in rows if ENGINE in str(row["peer"]) and row["peer"] != row["base"]]
    if options.record:
        record(own)
    if options.check and (found := falls(own, read_recorded())):
        sys.exit("not as recorded: " + "; ".join(found))


if __name__ == "__main__":
    main()
