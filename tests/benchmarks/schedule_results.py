"""From the rows of finished runs to PSNR over examples and over seconds, as a table and as a plot.

The machine is shared, so the seconds of a run are not those it happened to take: they are its steps at each
batch size times the median seconds of a step of that size, measured side by side in one process.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from engine.storage.run_directory import RunDirectory, read_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  after the choice of the backend

SMOOTHED_EVALUATIONS = 3
"""A run's PSNR at a position is the mean of its last so many evaluations: a GAN's wobbles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One run, or the mean of several.

    Args:
      examples, psnr_db, sec: one value an evaluation; PSNR smoothed, seconds of steps alone.
      steps: of the whole run.
      measured_sec: what the steps really took, beside whatever else the machine did.
    """

    examples: np.ndarray
    psnr_db: np.ndarray
    sec: np.ndarray
    steps: float
    measured_sec: float

    def reaches(self, psnr_db: float) -> int | None:
        """Index of the first evaluation with a smoothed PSNR of at least that; None if there is none."""
        there = np.flatnonzero(self.psnr_db >= psnr_db)
        return int(there[0]) if there.size else None

    def sec_to(self, psnr_db: float) -> float:
        index = self.reaches(psnr_db)
        return math.inf if index is None else float(self.sec[index])


def is_done(workdir: str, *, examples: int) -> bool:
    """Whether the run there is complete and that long."""
    path = RunDirectory(workdir).done
    if not os.path.exists(path):
        return False
    with open(path) as file:
        return json.load(file)["examples"] >= examples


def steps_by_batch(workdir: str) -> list[tuple[int, collections.Counter]]:
    """For each row of the training log: its position in examples, and the steps of each size since the last.

    A row tells the batch of its last step. Where that differs from the row before, the batch changed in
    between; once, if rows are frequent enough, and then the numbers of examples and steps tell when.
    """
    rows = read_rows(RunDirectory(workdir).train_log)
    before = {"examples": 0, "step": 0, "global_batch": rows[0]["global_batch"]}
    intervals = []
    for row in rows:
        steps = row["step"] - before["step"]
        old, new = before["global_batch"], row["global_batch"]
        examples = row["examples"] - before["examples"]
        of_old = 0 if old == new else round((new * steps - examples) / (new - old))
        of_old = min(max(of_old, 0), steps)
        counts = collections.Counter({old: of_old}) + collections.Counter({new: steps - of_old})
        intervals.append((row["examples"], counts))
        before = row
    return intervals


def median_sec_per_step(workdir: str) -> dict[int, float]:
    """Batch size -> seconds of a step, from a run that goes round the sizes.

    The first row after a change of size is left out: it holds the opening of the new input.
    """
    rows = read_rows(RunDirectory(workdir).train_log)
    sec = collections.defaultdict(list)
    for before, row in itertools.pairwise(rows):
        if before["global_batch"] == row["global_batch"]:
            sec[row["global_batch"]].append(row["sec_per_step"])
    return {size: statistics.median(values) for size, values in sorted(sec.items())}


def read_curve(workdir: str, sec_per_step: Mapping[int, float]) -> Curve:
    """The curve of a finished run."""
    evaluations = read_rows(RunDirectory(workdir).eval_log)
    rows = read_rows(RunDirectory(workdir).train_log)
    examples = np.array([row["examples"] for row in evaluations])
    psnr_db = [row["metric/psnr_db"] for row in evaluations]
    positions, sec, steps = [0], [0.0], 0
    for position, counts in steps_by_batch(workdir):
        positions.append(position)
        sec.append(sec[-1] + sum(n * sec_per_step[size] for size, n in counts.items()))
        steps += counts.total()
    taken = np.diff([0] + [row["step"] for row in rows])
    return Curve(
        examples=examples,
        psnr_db=_smoothed(psnr_db),
        sec=np.interp(examples, positions, sec),
        steps=steps,
        measured_sec=float(sum(n * row["sec_per_step"] for n, row in zip(taken, rows, strict=True))),
    )


def _smoothed(values: Sequence[float]) -> np.ndarray:
    """Trailing means; the first ones are over what there is."""
    return np.array(
        [np.mean(values[max(0, end - SMOOTHED_EVALUATIONS) : end]) for end in range(1, len(values) + 1)]
    )


def mean_curve(by_seed: Mapping[int, Curve]) -> Curve:
    """Mean over seeds, at the positions of the first: a batch that adapts shifts them by a step or so."""
    curves = list(by_seed.values())
    examples = curves[0].examples
    return Curve(
        examples=examples,
        psnr_db=np.mean([np.interp(examples, c.examples, c.psnr_db) for c in curves], axis=0),
        sec=np.mean([np.interp(examples, c.examples, c.sec) for c in curves], axis=0),
        steps=statistics.mean(c.steps for c in curves),
        measured_sec=statistics.mean(c.measured_sec for c in curves),
    )


def table(curves: Mapping[str, Mapping[int, Curve]], *, reference: str) -> str:
    """One data set as a markdown table; the target is the final PSNR of the schedule `reference`.

    Args:
      curves: schedule -> seed -> curve.
      reference: the schedule that sets the target, and the seconds the others are compared with.
    """
    references = curves[reference]
    target_db = mean_curve(references).psnr_db[-1]
    reference_sec = mean_curve(references).sec_to(target_db)
    lines = [
        f"Target: {target_db:.2f} dB, the final PSNR of {reference} (mean over {len(references)} seeds).",
        "",
        "| schedule | seeds | final PSNR (each seed) | steps | s to the end | examples to target "
        f"| s to target | of {reference}'s | each seed | measured / computed s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in curves.items():
        mean = mean_curve(runs)
        at = mean.reaches(target_db)
        seeds = ", ".join(f"{run.psnr_db[-1]:.2f}" for run in runs.values())
        reached = "never" if at is None else f"{mean.examples[at]:,}"
        lines.append(
            f"| {name} | {len(runs)} | {mean.psnr_db[-1]:.2f} ({seeds}) | {mean.steps:,.0f} "
            f"| {mean.sec[-1]:.0f} | {reached} | {_number(mean.sec_to(target_db), '.0f')} "
            f"| {_number(mean.sec_to(target_db) / reference_sec, '.2f')} "
            f"| {', '.join(_number(r, '.2f') for r in _ratios(runs, references))} "
            f"| {mean.measured_sec / mean.sec[-1]:.2f} |"
        )
    return "\n".join(lines)


def _ratios(runs: Mapping[int, Curve], references: Mapping[int, Curve]) -> list[float]:
    """Seconds to the final PSNR of the reference's run with the same seed, against that run's."""
    return [
        run.sec_to(references[seed].psnr_db[-1]) / references[seed].sec_to(references[seed].psnr_db[-1])
        for seed, run in runs.items()
        if seed in references
    ]


def _number(value: float, format_spec: str) -> str:
    return format(value, format_spec) if math.isfinite(value) else "-"


def plot(curves: Mapping[str, Mapping[str, Mapping[int, Curve]]], path: str, *, reference: str) -> None:
    """Writes a PNG: a row for each data set, PSNR over examples and over seconds; bands span the seeds."""
    figure, axes = plt.subplots(len(curves), 2, figsize=(13, 4.5 * len(curves)), squeeze=False)
    for (left, right), (data_set, by_schedule) in zip(axes, curves.items(), strict=True):
        for name, by_seed in by_schedule.items():
            mean = mean_curve(by_seed)
            psnr_db = [np.interp(mean.examples, c.examples, c.psnr_db) for c in by_seed.values()]
            low, high = np.min(psnr_db, axis=0), np.max(psnr_db, axis=0)
            for axis, x in ((left, mean.examples), (right, mean.sec)):
                (line,) = axis.plot(x, mean.psnr_db, label=name, linewidth=1.5)
                axis.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        target_db = mean_curve(by_schedule[reference]).psnr_db[-1]
        bottom = min(curve.psnr_db[1:].min() for runs in by_schedule.values() for curve in runs.values())
        for axis, label in ((left, "examples"), (right, "seconds of training steps")):
            axis.axhline(target_db, color="black", linestyle="--", linewidth=0.8)
            axis.set(xlabel=label, ylabel="held-out PSNR (dB)", title=data_set)
            axis.set_ylim(bottom=bottom)
        right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
