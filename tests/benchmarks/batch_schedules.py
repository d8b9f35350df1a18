"""Compares batch schedules: examples and seconds to a fixed held-out PSNR at 64x64.

    python tests/benchmarks/batch_schedules.py --output=DIR [--facades=FOLDER]

Data sets: the embedded one and, with --facades (the CMP facades: folders train and val), blurred photos to
be restored. Every schedule is trained with every seed, each run in a process of its own; then one more
process measures the seconds of a step at each batch size. Writes DIR/results.md and DIR/results.png. A
second call goes on where the first one stopped; another configuration needs another DIR.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from absl import app, flags, logging
from blurred_photos import NAME, prepare_blurred_photos
from schedule_results import (
    Curve,
    is_done,
    median_sec_per_step,
    plot,
    read_curve,
    steps_by_batch,
    table,
)

from data.synthetic.facades import prepare_synthetic

OUTPUT = flags.DEFINE_string("output", None, "Folder of the runs and results.", required=True)
FACADES = flags.DEFINE_string("facades", None, "Folder of the CMP facades; only embedded data without it.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of every schedule.", lower_bound=1)
EXAMPLES = flags.DEFINE_integer("examples", 8000, "Length of every run.", lower_bound=1)
JOBS = flags.DEFINE_integer("jobs", 1, "Training runs side by side; timing is always alone.", lower_bound=1)
TIMING_ROUNDS = flags.DEFINE_integer("timing_rounds", 20, "Rounds over the batch sizes.", lower_bound=1)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DIVERGED = 3
"""Exit code of a training program whose losses were not finite: a result like others."""


def piecewise(schedule: int | str, rule: str = "none") -> tuple[str, ...]:
    """Flags of a schedule that is known in advance."""
    return (
        f"--gin_param=BATCH_SCHEDULE = {schedule!r}",
        f"--gin_param=LEARNING_RATE_RULE = {rule!r}",
    )


GROWING = "0ep:1, 3ep:2, 6ep:4, 10ep:8"
GROWING_LATER = "0ep:1, 5ep:2, 8ep:4, 12ep:8"
REFERENCE = "batch 1"

SCHEDULES: dict[str, tuple[str, ...]] = {
    REFERENCE: piecewise(1),
    "batch 8": piecewise(8),
    "growing, rule none": piecewise(GROWING),
    "growing later, rule none": piecewise(GROWING_LATER),
    "growing, rule linear": piecewise(GROWING, "linear"),
    # The full rule has no answer above twice the batch for beta1 = 0.5.
    "growing, rule square_root_beta1_kept": piecewise(GROWING, "square_root_beta1_kept"),
    "plateau, rule none": (
        "--gin_file=gin/schedules/smith_plateau.gin",
        "--gin_param=EVALUATE_EVERY = 400",
        "--gin_param=adaptive_batch.GrowOnPlateau.factor = 2.0",
        "--gin_param=adaptive_batch.GrowOnPlateau.maximum = 8",
        "--gin_param=adaptive_batch.GrowOnPlateau.patience = 1",
        "--gin_param=task.Adam.schedule = None",  # as measured: it never falls
    ),
    "noise scale, rule none": (
        "--gin_file=gin/schedules/noise_scale.gin",
        "--gin_param=LEARNING_RATE_RULE = 'none'",
        "--gin_param=adaptive_batch.GrowByNoiseScale.maximum = 8",
        "--gin_param=adaptive_batch.GrowByNoiseScale.every = 400",
    ),
}
"""Name -> flags of engine.train."""

MEASURED = {"noise scale, rule none": ("--gin_param=experiment.Experiment.measure_noise_scale = True",)}
"""Schedules whose steps do more than the others' -> the flags that make a timing run do the same."""

DATA_SETS: dict[str, tuple[str, ...]] = {
    "synthetic_facades": ("--gin_param=LOAD_SIZE = 64",),
    NAME: ("--gin_param=LOAD_SIZE = 0",),
}
"""Prepared data set -> flags of engine.train."""


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if argv[1:]:
        raise app.UsageError(f"{argv[1]!r}: unexpected argument")
    data_sets = list(DATA_SETS)
    prepare_synthetic(_path("datasets"))  # now: runs side by side would all draw it
    if FACADES.value:
        prepare_blurred_photos(os.path.expanduser(FACADES.value), _path("pairs"), _path("datasets"))
    else:
        data_sets.remove(NAME)
    # Seeds outermost: what there is after a part of the time compares all schedules.
    runs = itertools.product(range(SEEDS.value), data_sets, SCHEDULES)
    with concurrent.futures.ThreadPoolExecutor(JOBS.value) as pool:
        for done in [pool.submit(_train_once, data_set, schedule, seed) for seed, data_set, schedule in runs]:
            done.result()
    curves = {data_set: _curves(data_set) for data_set in data_sets}
    text = _report(curves)
    print(text)
    with open(_path("results.md"), "w") as file:
        file.write(text)
    plot(curves, _path("results.png"), reference=REFERENCE)


def _path(*parts: str) -> str:
    return os.path.join(os.path.abspath(os.path.expanduser(OUTPUT.value)), *parts)


def _workdir(data_set: str, schedule: str, seed: int) -> str:
    return _path("runs", data_set, schedule.replace(",", "").replace(" ", "_"), f"seed{seed}")


def _train_once(data_set: str, schedule: str, seed: int) -> None:
    workdir = _workdir(data_set, schedule, seed)
    if not is_done(workdir, examples=EXAMPLES.value):
        length = f"--gin_param=TOTAL_EXAMPLES = {EXAMPLES.value}"
        _train(data_set, [*SCHEDULES[schedule], length, f"--gin_param=SEED = {seed}"], workdir)


def _train(data_set: str, arguments: Sequence[str], workdir: str) -> None:
    """Trains in a process of its own; what it prints goes to a file beside the run."""
    print(f"training {workdir}", flush=True)
    os.makedirs(workdir, exist_ok=True)
    command = [
        *(sys.executable, "-m", "engine.train", "--gin_file=tests/benchmarks/batch_schedules.gin"),
        f"--gin_param=DATASET = {data_set!r}",
        f"--gin_param=DATA_DIR = {_path('datasets')!r}",
        *DATA_SETS[data_set],
        *arguments,
        f"--workdir={workdir}",
    ]
    with open(os.path.join(workdir, "output.txt"), "a") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
    if code == DIVERGED:
        print(f"diverged: {workdir}", flush=True)
    elif code:
        sys.exit(f"{workdir}: training ended with exit code {code}; see output.txt there")


def _sec_per_step(data_set: str, sizes: Sequence[int], arguments: Sequence[str]) -> dict[int, float]:
    """Batch size -> median seconds of a step, from a run that goes round the sizes."""
    kind = "measured" if arguments else "plain"
    workdir = _path("timing", data_set, "_".join(map(str, [kind, *sizes])))
    row = max(32, 4 * max(sizes))  # examples between two rows of the log
    piece = 3 * row  # the first row of each piece is not used
    count = len(sizes) * TIMING_ROUNDS.value
    schedule = ", ".join(f"{index * piece}:{sizes[index % len(sizes)]}" for index in range(count))
    if not is_done(workdir, examples=count * piece):
        settings = {"BATCH_SCHEDULE": schedule, "TOTAL_EXAMPLES": count * piece, "LOG_EVERY": row}
        settings["EVALUATE_EVERY"] = 0
        params = [f"--gin_param={name} = {value!r}" for name, value in settings.items()]
        _train(data_set, [*params, *arguments], workdir)
    return median_sec_per_step(workdir)


def _curves(data_set: str) -> dict[str, dict[int, Curve]]:
    """Schedule -> seed -> curve, of the runs that did not diverge."""
    runs = {
        schedule: {
            seed: workdir
            for seed in range(SEEDS.value)
            if is_done(workdir := _workdir(data_set, schedule, seed), examples=EXAMPLES.value)
        }
        for schedule in SCHEDULES
    }
    workdirs = [workdir for by_seed in runs.values() for workdir in by_seed.values()]
    sizes = {size for workdir in workdirs for _, steps in steps_by_batch(workdir) for size in steps}
    sec_per_step = {
        schedule: _sec_per_step(data_set, sorted(sizes), MEASURED.get(schedule, ())) for schedule in runs
    }
    for schedule in (REFERENCE, *MEASURED):
        times = ", ".join(f"{size}: {1e3 * sec:.1f} ms" for size, sec in sec_per_step[schedule].items())
        print(f"{data_set}, a step at batch {times} ({schedule})", flush=True)
    return {
        schedule: {seed: read_curve(workdir, sec_per_step[schedule]) for seed, workdir in by_seed.items()}
        for schedule, by_seed in runs.items()
        if by_seed
    }


def _report(curves: Mapping[str, Mapping[str, Mapping[int, Curve]]]) -> str:
    parts = []
    for data_set, by_schedule in curves.items():
        parts += [f"## {data_set}", table(by_schedule, reference=REFERENCE)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    app.run(main)
