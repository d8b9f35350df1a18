"""Compares a training step of this project with others on one GPU, by turns, in less than ten minutes.

python -m tests.benchmarks.training_step.on_gpu [--torch_python=PYTHON] [--cases=pix2pix-1,pix2pix-16]
    [--peers="engine,engine XLA,torch"] [--minutes=9.5] [--rounds=9] [--output=runs/bench] [--device=gpu]

The peers are those of `compare`: this project in float32 (with TF32), bfloat16 and float16, the first two
with XLA too, a bare loop after TensorFlow's tutorial, and PyTorch, channels-last with cuDNN's benchmark. All
peers of a case hold the GPU at once and compute by turns of several steps; a turn ends when the GPU has
finished. They start one after another, the most important first, so that no other work disturbs the timing
of cuDNN's algorithms. A peer that does not start, for lack of memory or time, is named and left out. The
floor is the FLOP of a step at the rate of large matrix products in the same precision, measured by turns too.

Without --torch_python, PyTorch is used if this Python has it. --device=cpu is a dry run. Appends one JSON
line a result to OUTPUT/training_step_gpu.jsonl.
"""

import data.quiet_tensorflow  # noqa: F401

# isort: split
import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from engine.distribution.gpus import physical_devices
from tests.benchmarks.training_step.compare import ENGINE, PRODUCT, TORCH, TUTORIAL, Case
from tests.benchmarks.training_step.peers import Peer, PeerEndedError, command_of

CASES = (
    Case(task="pix2pix", size=256, batch=1),
    Case(task="pix2pix", size=256, batch=16),
    Case(task="cyclegan", size=256, batch=1),
    Case(task="quickstart", size=64, batch=4),
)
DEFAULT_CASES = "pix2pix-1,pix2pix-16,cyclegan-1"

START_SHARE = 0.75
"""Part of a case's time in which its peers start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """A peer to start.

    Attributes:
      name: in the table.
      command: starts it.
      precision: of its convolutions.
      calls: how often it is called in a turn.
      steps: steps of one call.
    """

    name: str
    command: Sequence[str]
    precision: str
    calls: int = 1
    steps: int = 1


def products(device: str, precisions: Sequence[str]) -> list[Runner]:
    """Large matrix products, for the floor of each precision."""
    size = ["--side=8192", "--products=10"] if device == "gpu" else ["--side=512", "--products=1"]
    return [
        Runner(
            name=f"{PRODUCT} {precision}",
            command=command_of("product_peer", f"--dtype={precision}", *size),
            precision=precision,
        )
        for precision in precisions
    ]


def runners(case: Case, *, device: str, torch_python: str | None, steps: int) -> list[Runner]:
    """The peers of a case, the most important first; `steps` make a turn."""
    sizes = [f"--size={case.size}", f"--batch={case.batch}"]

    def of_engine(name: str, precision: str, *, xla: bool = False) -> Runner:
        settings = [f'PRECISION = "{precision}"', f"JIT_COMPILE = {xla}"]
        flags = [f"--gin_file=gin/{case.task}.gin", *sizes, f"--steps={steps}"]
        flags += [f"--gin_param={setting}" for setting in settings]
        flags.append("--flop" if name == ENGINE else "--no-flop")  # the same for all
        return Runner(name=name, command=command_of("engine_peer", *flags), precision=precision, steps=steps)

    def of_torch(name: str, precision: str) -> Runner:
        flags = [f"--task={case.task}", f"--threads={len(os.sched_getaffinity(0))}", *sizes]
        flags += [] if precision == "float32" else [f"--{precision}"]
        flags.append(f"--device={'cuda' if device == 'gpu' else 'cpu'}")
        command = command_of("torch_peer", *flags, python=torch_python or sys.executable)
        return Runner(name=name, command=command, precision=precision, calls=steps)

    tutorial = command_of("tutorial_peer", f"--batch={case.batch}")
    found = [
        of_engine(ENGINE, "float32"),
        of_torch(TORCH, "float32"),
        of_engine(f"{ENGINE} XLA", "float32", xla=True),
        of_engine(f"{ENGINE} bfloat16", "bfloat16"),
        of_torch(f"{TORCH} bfloat16", "bfloat16"),
        of_engine(f"{ENGINE} bfloat16 XLA", "bfloat16", xla=True),
        Runner(name=TUTORIAL, command=tutorial, precision="float32", calls=steps),
        of_engine(f"{ENGINE} float16", "float16"),
        of_torch(f"{TORCH} float16", "float16"),
    ]
    left_out = [TUTORIAL] * (case.task != "pix2pix")
    return [
        each
        for each in found
        if each.name not in left_out and (torch_python or not each.name.startswith(TORCH))
    ]


@contextlib.contextmanager
def started(wanted: Sequence[Runner], *, until: float) -> Iterator[dict[str, Peer]]:
    """Starts peers one after another; names those that do not start before `until`, of `time.monotonic`."""
    peers: dict[str, Peer] = {}
    try:
        for each in wanted:
            peer = Peer(each.command)
            try:
                peer.wait(within_sec=max(0.0, until - time.monotonic()))
                peers[each.name] = peer
            except PeerEndedError:
                peer.close()
                why = "ended as it started" if time.monotonic() < until else "no time was left"
                print(f"{each.name}: left out, {why}", file=sys.stderr, flush=True)
        yield peers
    finally:
        for peer in peers.values():
            peer.close()


def measure(
    case: Case, wanted: Sequence[Runner], floors: dict[str, Peer], *, rounds: int, until: float
) -> list[dict[str, object]]:
    """Runs the peers of a case by turns, at most until then.

    Returns:
      A row for each peer. "speed" is the median over the rounds of how many times its examples a second are
      those of PyTorch in float32, or of this project without PyTorch.
    """
    now = time.monotonic()
    with started(wanted, until=now + START_SHARE * (until - now)) as peers:
        flop = max((peer.flop for peer in peers.values()), default=0.0)
        calls = {each.name: each.calls for each in wanted}
        everyone = peers | floors
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in everyone}
        for turn in range(rounds):
            if turn and time.monotonic() > until:
                break
            for name in sorted(everyone, reverse=turn % 2 == 1):
                turns[name].append(everyone[name].run(calls.get(name, 1)))
    sec = {
        each.name: np.array([turn["sec"] for turn in turns[each.name]]) / each.steps
        for each in wanted
        if each.name in peers
    }
    base = next((name for name in (TORCH, ENGINE) if name in sec), None)
    rows: list[dict[str, object]] = []
    for each in wanted:
        if each.name not in sec:
            continue
        found, floor = sec[each.name], f"{PRODUCT} {each.precision}"
        rate = floors[floor].flop / np.median([turn["sec"] for turn in turns[floor]])
        rows.append(
            {
                "case": case.name,
                "peer": each.name,
                "rounds": len(found),
                "sec": float(np.median(found)),
                "examples_per_sec": case.batch / float(np.median(found)),
                "speed": float(np.median(sec[base] / found)) if base else None,
                "base": base,
                "floor_share": float(flop / rate / np.median(found)),
                "product_flop_per_sec": float(rate),
                "peak_bytes": max(turn["peak_bytes"] for turn in turns[each.name]),
            }
        )
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| Case | Peer | ms a step | Examples/s | Times the base's | Of the floor | Peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed = f"{row['speed']:.2f} ({row['base']})" if row["base"] else ""
        lines.append(
            f"| {row['case']} | {row['peer']} | {1e3 * row['sec']:.1f} | {row['examples_per_sec']:.1f} | "
            f"{speed} | {row['floor_share']:.0%} | {row['peak_bytes'] / 2**20:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the program from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch_python")
    parser.add_argument("--cases", default=DEFAULT_CASES)
    parser.add_argument("--peers", help="only these")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--output", default="runs/bench")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    options = parser.parse_args()
    wanted = options.cases.split(",")
    cases = [case for case in CASES if case.name in wanted]
    if len(cases) != len(wanted):
        parser.error(f"--cases={options.cases}: use some of {', '.join(case.name for case in CASES)}")
    gpus = physical_devices("GPU")
    if options.device == "gpu" and not gpus:
        print(
            "bench-gpu: TensorFlow finds no GPU on this machine; python -m engine.doctor lists the devices, "
            "make bench compares on CPUs",
            file=sys.stderr,
        )
        sys.exit(2)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the peers share the GPU
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    torch_python = options.torch_python or (sys.executable if importlib.util.find_spec("torch") else None)
    if torch_python is None:
        print("PyTorch: left out, this Python has none; --torch_python names one", file=sys.stderr)
    on_gpu = options.device == "gpu"
    print(tf.config.experimental.get_device_details(gpus[0]).get("device_name") if on_gpu else "CPU")
    os.makedirs(options.output, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    rows: list[dict[str, object]] = []
    floors = products(options.device, ("float32", "bfloat16", "float16"))
    with (
        started(floors, until=end) as running,
        open(os.path.join(options.output, "training_step_gpu.jsonl"), "a", encoding="utf-8") as results,
    ):
        if len(running) < len(floors):
            sys.exit("the products, which the floor is measured by, did not start")
        for number, case in enumerate(cases):
            peers = runners(case, device=options.device, torch_python=torch_python, steps=20 if on_gpu else 1)
            if options.peers:
                peers = [each for each in peers if each.name in options.peers.split(",")]
            now = time.monotonic()
            until = now + (end - now) / (len(cases) - number)
            try:
                new = measure(case, peers, running, rounds=options.rounds, until=until)
            except PeerEndedError as error:
                sys.exit(f"{case.name}: {error}")
            results.writelines(json.dumps(row) + "\n" for row in new)
            results.flush()
            rows += new
            print(f"measured {case.name}", file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
