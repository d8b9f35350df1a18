"""Prepares, trains, stops, resumes, evaluates and translates random configurations.

python -m tests.helpers.fuzz --first=0 --count=300 --jobs=2
python -m tests.helpers.fuzz --seeds=17,203               repeats two of them

Each must work with finite numbers, or be refused before training with exit code 2 and one line.
"""

from __future__ import annotations

import data.quiet_tensorflow  # noqa: F401

# isort: split
import argparse
import collections
import pathlib
import shutil
import sys
import tempfile
import time

from tests.helpers.fuzz.configurations import draw
from tests.helpers.fuzz.course import FAILED, WORKED
from tests.helpers.fuzz.processes import run_forked


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.helpers.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first configuration")
    parser.add_argument("--count", type=int, default=300, help="number of configurations")
    parser.add_argument("--seeds", help="seeds instead, such as 17,203")
    parser.add_argument("--jobs", type=int, default=2, help="number of configurations at the same time")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a configuration may take")
    flags = parser.parse_args()
    seeds = range(flags.first, flags.first + flags.count)
    if flags.seeds:
        seeds = [int(seed) for seed in flags.seeds.split(",")]
    directory, began, outcomes = pathlib.Path(tempfile.mkdtemp(prefix="fuzz_")), time.monotonic(), []
    for outcome, sec in run_forked(seeds, directory, jobs=flags.jobs, limit_sec=flags.limit):
        outcomes.append(outcome)
        stage = outcome.stage if outcome.result != WORKED else "stopped" if outcome.stopped else ""
        print(
            f"{outcome.seed:5}  {outcome.result:8} {sec:4.0f} s  {stage:17} {draw(outcome.seed).summary}  "
            f"{outcome.detail}",
            flush=True,
        )
    counts = collections.Counter(outcome.result for outcome in outcomes)
    told = ", ".join(f"{number} {result}" for result, number in sorted(counts.items()))
    print(f"{told}; {sum(outcome.stopped for outcome in outcomes)} stopped and resumed; "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    failed = sorted(outcome.seed for outcome in outcomes if outcome.result == FAILED)
    if failed:
        print(f"to repeat the failures: --seeds={','.join(map(str, failed))}; their files are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
