"""All tables of `make bench`: training steps beside others', and what the rest of a run costs.

python -m tests.benchmarks.whole_run.tables [--tables=step,overhead] [--torch_python=PYTHON]
    [--facades=FOLDER] [--photos=FOLDER] [--rounds=N] [--output=runs/bench] [--check]

step        a training step beside PyTorch's and a bare loop's: `training_step.compare`
overhead    `engine.train` on real data, with logs and checkpoints, over its own compiled step
replicas    2 logical replicas, and 2 workers, over 1 replica on the same cores
growth      a boundary of a growing batch, over a usual step
start       seconds from the command to the first step, warm and cold
data        images a second of the input pipeline over PyTorch's and Keras's; --facades, --torch_python
evaluation  of a split, over the generator alone; needs --facades
translate   pictures, over the generator alone; needs --photos

What is compared takes turns, so that other work on the machine disturbs all alike: read ratios, not times.
Writes one JSON line a result to OUTPUT/TABLE.jsonl. --check compares the ratios with those of `recorded.json`
and fails if one is more than 15 % below it; --record writes them there. FOLDER of --facades has train/, val/
and test/ with pictures side by side. Without --tables, those whose folders are given are measured.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable

from tests.benchmarks.recorded_ratios import Row, falls, read_recorded, record
from tests.benchmarks.training_step.peers import ROOT, PeerEndedError
from tests.benchmarks.whole_run import overhead, programs, replicas, start
from tests.benchmarks.whole_run.rows import machine, table

STEP = "step"


def measurements(options: argparse.Namespace) -> dict[str, Callable[[], Iterable[Row]]]:
    """How each table is measured, of those whose folders are given."""
    found: dict[str, Callable[[], Iterable[Row]]] = {
        "overhead": lambda: overhead.measure(rounds=options.rounds or 6),
        "replicas": lambda: replicas.measure(rounds=options.rounds or 9),
        "growth": programs.growth,
        "start": lambda: start.measure(rounds=options.rounds or 3),
    }
    rounds = options.rounds or 2
    if options.facades and options.torch_python:
        found["data"] = lambda: programs.data_speed(
            images=os.path.join(options.facades, "train"), torch_python=options.torch_python, rounds=rounds
        )
    if options.facades:
        found["evaluation"] = lambda: programs.evaluation_speed(facades=options.facades, rounds=rounds)
    if options.photos:
        found["translate"] = lambda: programs.translate_speed(photos=options.photos, rounds=rounds)
    return found


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", help="Names with commas between; all by default.")
    parser.add_argument("--torch_python")
    parser.add_argument("--facades")
    parser.add_argument("--photos")
    parser.add_argument("--cases", help="Of the table `step`.")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--output", default="runs/bench")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--record", action="store_true")
    return parser


def _steps_fail(options: argparse.Namespace) -> bool:
    """Runs the table of training steps, which is a program of its own."""
    flags = [f"--{name}" for name in ("check", "record") if getattr(options, name)]
    for name in ("torch_python", "cases", "rounds", "output"):
        if (value := getattr(options, name)) is not None:
            flags.append(f"--{name}={value}")
    command = [sys.executable, "-m", "tests.benchmarks.training_step.compare", *flags]
    return subprocess.run(command, cwd=ROOT, check=False).returncode != 0


def _measured(name: str, measure: Callable[[], Iterable[Row]]) -> Iterable[Row]:
    try:
        yield from measure()
    except PeerEndedError as error:
        sys.exit(f"{name}: {error}")


def main() -> None:
    """Runs the program from the command line."""
    parser = _flags()
    options = parser.parse_args()
    options.output = os.path.abspath(options.output)
    known = measurements(options)
    wanted = options.tables.split(",") if options.tables else [STEP, *known]
    if unknown := [name for name in wanted if name not in (STEP, *known)]:
        parser.error(f"--tables={unknown[0]}: is unknown or lacks --facades, --photos or --torch_python")
    os.makedirs(options.output, exist_ok=True)
    fails = STEP in wanted and _steps_fail(options)
    print(machine(), flush=True)
    rows: list[Row] = []
    for name in wanted:
        if name == STEP:
            continue
        with open(os.path.join(options.output, f"{name}.jsonl"), "a", encoding="utf-8") as results:
            for found in _measured(name, known[name]):
                row = found | {"machine": machine(), "load": os.getloadavg()[0]}
                results.write(json.dumps(row) + "\n")
                results.flush()
                rows.append(row)
        print(f"measured {name}", file=sys.stderr)
    print(table(rows))
    if options.record:
        record(rows)
    if options.check and (found_falls := falls(rows, read_recorded())):
        sys.exit("not as recorded: " + "; ".join(found_falls))
    sys.exit(fails)


if __name__ == "__main__":
    main()
