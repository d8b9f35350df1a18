"""Trains small CycleGANs, each killed three times by SIGKILL; all must end like an undisturbed run.

python -m tests.helpers.kill_soak --runs=30 --jobs=2
python -m tests.helpers.kill_soak --seed=1234 --only=17      repeats one run, killed at the same moments
"""

from __future__ import annotations

import data.quiet_tensorflow  # noqa: F401

# isort: split
import argparse
import collections
import concurrent.futures
import dataclasses
import os
import queue
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from tests.helpers.killing import (
    GIN_FILE,
    Course,
    ForkedProgram,
    Moment,
    Program,
    assert_each_example_once,
    differences,
    kill_at,
    variables,
)
from tests.helpers.small_cyclegan.made_up_images import prepare_made_up_images

PARAMS = (
    "BATCH_SCHEDULE = '0:1, 12:2, 30:3, 66:5, 106:7'",
    "TOTAL_EXAMPLES = 190",
    "DROPOUT = True",
    "LOG_EVERY = 2",
    "SAVE_EVERY = 9",
    "EVALUATE_EVERY = 20",
    "SAMPLE_EVERY = 60",
    "KEEP_CHECKPOINTS = 2",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a killed run.

    Attributes:
      number: of the run.
      kills: for each kill, the planned moment and where the training really was.
      wrong: differences from the undisturbed run, or an earlier error; empty if there are none.
    """

    number: int
    kills: list[tuple[Moment, str]]
    wrong: list[str]


class Soak:
    """An undisturbed run and killed ones.

    Args:
      directory: for the data set and all runs.
      seed: of the moments.
      params: settings of the runs, as in --gin_param.
      gin_files: of the runs.
      jobs: number of runs at the same time.
      make_program: starts trainings.
    """

    def __init__(
        self,
        directory: str,
        *,
        seed: int,
        params: Sequence[str] = PARAMS,
        gin_files: Sequence[str] = (GIN_FILE,),
        jobs: int = 2,
        make_program: Callable[[], Program | ForkedProgram] = Program,
    ):
        self._directory, self._seed, self._jobs = directory, seed, jobs
        self._gin_files = gin_files
        self._all_programs = [make_program() for _ in range(jobs)]
        self._programs: queue.SimpleQueue = queue.SimpleQueue()
        for program in self._all_programs:
            self._programs.put(program)
        data_dir = prepare_made_up_images(directory)
        self._params = (*params, f"DATA_DIR = {data_dir!r}")

    def train_undisturbed(self) -> Course:
        """Trains the run that the others must equal."""
        program, began = self._programs.get(), time.time()
        directory, output = self._start(program, "undisturbed", 0)
        code = program.wait()
        self._programs.put(program)
        assert code == 0, _end_of(output)
        self.course = Course(directory, began=began)
        assert_each_example_once(variables(directory, self.course.total)["task/drawn"])
        return self.course

    def train_killed(self, kinds: dict[int, Sequence[str]]) -> Iterable[Outcome]:
        """Trains runs, each killed at moments of its kinds in turn; yields results as runs end.

        Args:
          kinds: kinds of moments by number of the run.
        """
        threads = concurrent.futures.ThreadPoolExecutor(self._jobs)
        try:
            runs = [threads.submit(self._train_killed, *item) for item in kinds.items()]
            for run in concurrent.futures.as_completed(runs):
                yield run.result()
        finally:  # Ctrl-C does not wait for all runs
            threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Ends the programs."""
        for program in self._all_programs:
            program.close()

    def _train_killed(self, number: int, kinds: Sequence[str]) -> Outcome:
        draw, kills = random.Random(f"{self._seed}/{number}"), []
        name, program = f"killed_{number:02d}", self._programs.get()
        try:
            for part, kind in enumerate(kinds):
                moment = self.course.draw_moment(draw, kind, part=part, parts=len(kinds))
                directory, output = self._start(program, name, part)
                if not kill_at(program, moment, self.course, directory=directory, output=output):
                    wrong = f"ended before it was killed, at {moment}: {_end_of(output)}"
                    return Outcome(number=number, kills=kills, wrong=[wrong])
                kills.append((moment, self.course.place(directory, output)))
            directory, output = self._start(program, name, len(kinds))
            if program.wait():
                return Outcome(number=number, kills=kills, wrong=[_end_of(output)])
        finally:
            self._programs.put(program)
        wrong = differences(directory, self.course.run.path)
        return Outcome(number=number, kills=kills, wrong=wrong)

    def _start(self, program: Program | ForkedProgram, name: str, start: int) -> tuple[str, str]:
        directory = os.path.join(self._directory, name)
        output = f"{directory}.{start}.txt"
        flags = [f"--gin_file={path}" for path in self._gin_files]
        flags += [f"--gin_param={param}" for param in self._params]
        program.start([f"--workdir={directory}", *flags], output)
        return directory, output


def draw_kinds(number: int, *, seed: int) -> list[str]:
    """Three kinds of moments for a run: in a save; at a boundary or in an evaluation; start-up or a step."""
    draw = random.Random(f"{seed}/{number}/kinds")
    kinds = ["save", ("boundary", "evaluation")[number % 2], draw.choice(["start-up", "step"])]
    draw.shuffle(kinds)
    return kinds


def table_of(outcomes: Iterable[Outcome]) -> str:
    """A table of the places at which runs were killed."""
    places = collections.Counter(place for outcome in outcomes for _, place in outcome.kills)
    rows = [f"{place:24}  {count:5}" for place, count in sorted(places.items())]
    return "\n".join([f"{'killed in':24}  kills", *rows])


def _end_of(output: str) -> str:
    with open(output) as file:
        return "".join(file.readlines()[-15:])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.helpers.kill_soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30, help="number of killed runs")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at the same time")
    parser.add_argument("--seed", type=int, help="seed of the moments; random if not given")
    parser.add_argument("--only", type=int, help="train only the run with this number")
    parser.add_argument("--gin_param", action="append", default=[], help="override, as in engine.train")
    flags = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if flags.seed is None else flags.seed
    print(f"seed {seed}", flush=True)
    numbers = range(flags.runs) if flags.only is None else [flags.only]
    directory, began, outcomes = tempfile.mkdtemp(prefix="kill_soak_"), time.monotonic(), []
    soak = Soak(directory, seed=seed, params=(*PARAMS, *flags.gin_param), jobs=flags.jobs)
    try:
        course = soak.train_undisturbed()
        print(f"undisturbed: {course.total} examples, first row after {course.start_sec:.1f} s", flush=True)
        for outcome in soak.train_killed({number: draw_kinds(number, seed=seed) for number in numbers}):
            outcomes.append(outcome)
            places = "; ".join(f"{moment.kind} -> {place}" for moment, place in outcome.kills)
            print(f"run {outcome.number:2}  {places}  {outcome.wrong or 'equal'}", flush=True)
    finally:
        soak.close()
    failed = sorted(outcome.number for outcome in outcomes if outcome.wrong)
    print(table_of(outcomes))
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} killed runs equal the undisturbed one, bit for "
        f"bit, after {time.monotonic() - began:.0f} s"
    )
    if failed:
        print(f"different: {failed}, see {directory}; to repeat one: --seed={seed} --only={failed[0]}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
