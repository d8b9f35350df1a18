"""Writes a page and plots about one or several runs: curves, samples, metrics, settings.

  python -m engine.report runs/mine
  python -m engine.report runs/a runs/b --output=comparison

The page, report.html, is one file that needs nothing else and works offline. Beside it lie the curves as PNG.
In a notebook: `from engine.report import report; report(runs=["runs/mine"], output="report")`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf
from absl import flags

from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.run_reports.curves import panels
from engine.run_reports.image_scores import read_scores
from engine.run_reports.page import page
from engine.run_reports.plots import write_plots
from engine.run_reports.run_record import read_runs
from engine.run_reports.sample_frames import frames
from engine.storage.atomic_files import write_text
from engine.storage.file_errors import reraise_write_errors


def report(*, runs: Sequence[str], output: str) -> list[str]:
    """Writes report.html, and the curves as PNG, about runs in whatever state they are.

    Args:
      runs: run directories.
      output: folder to write to, made if missing.

    Returns:
      The paths of the files, the page first.

    Raises:
      ConfigurationError: a path holds no run, or a file cannot be read or written.
    """
    if not runs:
        raise ConfigurationError("no run given; name run directories: python -m engine.report runs/mine")
    records = read_runs(runs)
    curves = panels(records)
    text = page(records, curves, frames(records), read_scores(records))
    output = os.path.expanduser(output)
    with reraise_write_errors(f"--output={output}", remedy="choose a folder you may write to"):
        tf.io.gfile.makedirs(output)
    path = os.path.join(output, "report.html")
    write_text(path, text)
    return [path, *write_plots(records, curves, output)]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write to; if not given, RUN/report for one run, and report for several.",
        flag_values=values,
    )


def main(values: flags.FlagValues, runs: Sequence[str]) -> None:
    """Runs the program with parsed flags and run directories."""
    output = values.output or (os.path.join(runs[0], "report") if len(runs) == 1 else "report")
    for path in report(runs=runs, output=output):
        print(f"wrote {path} ({tf.io.gfile.stat(path).length / 1024:,.0f} KiB)")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags, takes_arguments=True)


if __name__ == "__main__":
    run()
