r"""Trains one experiment with several settings, one run after another, and compares the runs.

  python -m engine.sweep --gin_file=gin/quickstart.gin --workdir=runs/sweep \
    --grid='BATCH_SCHEDULE = [1, 4, 16]' --grid='NORM = ["batch", "instance"]'
  python -m engine.sweep --gin_file=gin/quickstart.gin --workdir=runs/how_much_data \
    --grid='TRAIN_FRACTION = [0.1, 0.3, 1.0]' --split=test
  python -m engine.sweep --gin_file=gin/pix2pix.gin --workdir=runs/resolution \
    --case='small: LOAD_SIZE = 143; CROP_SIZE = 128; pix2pix.Pix2Pix.generator = "unet_128"' --case='large:'

Each --grid is one setting with its values. The --case flags are settings that vary together; a part that ends
in .gin is a further gin file. Every combination is a run, in a process of its own and in a directory of its
own in --workdir. The same command skips what is complete and continues the rest; started several times, even
on several machines, the processes share the runs. At the end: table.txt, table.csv and plots in --workdir.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from absl import flags

from engine.cli.gin_flags import define_gin_flags
from engine.cli.program import run_program
from engine.distribution.gpus import use_gpus
from engine.errors import ConfigurationError, RunInterruptedError, RunsFailedError
from engine.reporting.closed_terminal import allow_closed_terminal
from engine.run_reports.curves import panels
from engine.run_reports.plots import write_plots
from engine.storage.atomic_files import write_text
from engine.sweeps.axis_plots import write_axis_plots
from engine.sweeps.bookkeeping import Bookkeeping
from engine.sweeps.points import Axis, points
from engine.sweeps.results import Result, csv_table, read_results, text_table
from engine.sweeps.run_state import plan_run
from engine.sweeps.sweep import ELSEWHERE, FAILED, REFUSED, STOPPED, Sweep


def sweep(
    *,
    gin_files: Sequence[str],
    workdir: str,
    gin_params: Sequence[str] = (),
    grids: Sequence[str] = (),
    cases: Sequence[str] = (),
    split: str = "",
) -> list[Result]:
    """Trains every combination of some settings, and writes the table and the plots.

    Args:
      gin_files: configuration files of all runs.
      workdir: directory of the sweep.
      gin_params: overrides of all runs.
      grids: one setting each, such as "BATCH_SCHEDULE = [1, 4]".
      cases: settings that vary together, such as "LOAD_SIZE = 72; CROP_SIZE = 64", each one case.
      split: evaluate each trained run on this split; empty: compare what training evaluates.

    Returns:
      The results, in the order of the runs.

    Raises:
      ConfigurationError: something that the user set cannot work for any run.
      engine.errors.RunInterruptedError: a signal came, and the run is saved; or a run stopped itself.
      engine.errors.RunsFailedError: some runs failed; the others are complete.
    """
    if not gin_files:
        raise ConfigurationError("no --gin_file given; start with --gin_file=gin/quickstart.gin")
    if not workdir:
        raise ConfigurationError("no --workdir given; name the directory of the sweep: --workdir=runs/sweep")
    axes, combinations = points(grids=grids, cases=cases)
    workdir = os.path.expanduser(workdir)
    runs = [
        plan_run(point, workdir=workdir, gin_files=gin_files, gin_params=gin_params, split=split)
        for point in combinations
    ]
    if all(run.refusal for run in runs):
        raise ConfigurationError(runs[0].refusal)
    bookkeeping = Bookkeeping(workdir)
    _say(f"{len(runs)} runs in {workdir}")
    progress = Sweep(runs, bookkeeping, split=split)
    progress.run()
    results = read_results(runs, progress.outcomes, split=split)
    _write_results(axes, results, workdir)
    _raise_if_incomplete(results, is_interrupted=progress.is_interrupted)
    return results


def _write_results(axes: Sequence[Axis], results: Sequence[Result], workdir: str) -> None:
    names = [axis.name for axis in axes]
    text = text_table(results, axes=names)
    write_text(os.path.join(workdir, "table.txt"), text + "\n")
    write_text(os.path.join(workdir, "table.csv"), csv_table(results, axes=names))
    records = [result.record for result in results if result.record]
    plots = write_axis_plots(axes, results, workdir)
    if records:
        plots += write_plots(records, panels(records), workdir)
    written = ", ".join(["table.txt", "table.csv", *map(os.path.basename, plots)])
    _say(
        f"{text}\n  written    {written} in {workdir}\n"
        f"  report     python -m engine.report {shlex.quote(workdir)}/*/ {shlex.quote(f'--output={workdir}')}"
    )


def _raise_if_incomplete(results: Sequence[Result], *, is_interrupted: bool) -> None:
    def named(*states: str) -> list[Result]:
        return [result for result in results if result.outcome.state in states]

    if is_interrupted:
        raise RunInterruptedError("the sweep was interrupted; the same command continues it")
    failed, stopped, elsewhere = named(FAILED, REFUSED), named(STOPPED), named(ELSEWHERE)
    if failed:
        told = "; ".join(f"{result.run.point.name} ({result.outcome.detail})" for result in failed)
        raise RunsFailedError(
            f"{len(failed)} of {len(results)} runs failed: {told}. The same command tries them again",
            code=failed[0].outcome.code,
        )
    if stopped:
        names = ", ".join(result.run.point.name for result in stopped)
        raise RunInterruptedError(f"not complete: {names}; the same command continues the sweep")
    if elsewhere:
        _say(f"{len(elsewhere)} of the runs are trained by other processes; the last one completes the table")


def _say(text: str) -> None:
    with allow_closed_terminal():
        print(text, flush=True)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    define_gin_flags(values)
    flags.DEFINE_string(
        "workdir", None, "Directory of the sweep; each run is a directory in it.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "grid",
        [],
        "A setting and its values, such as 'BATCH_SCHEDULE = [1, 4]'. May be repeated: all combinations.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "case",
        [],
        "Settings that vary together, such as 'small: LOAD_SIZE = 72; CROP_SIZE = 64'. Repeat it for each.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "split",
        "",
        "Evaluate each trained run on this split, such as test; if not given, the table has what training "
        "evaluates.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    use_gpus([])  # they belong to the runs
    sweep(
        gin_files=values.gin_file,
        gin_params=values.gin_param,
        workdir=values.workdir,
        grids=values.grid,
        cases=values.case,
        split=values.split,
    )


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
