"""Writes what a run reports: console and log.txt, train.jsonl, eval.jsonl, TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from engine.distribution.determinism import is_deterministic
from engine.distribution.devices import Devices
from engine.evaluation.results import Evaluation
from engine.evaluation.sample_grid import write_png
from engine.experiment import Experiment
from engine.inner_loop.train_state import trainable_parameters
from engine.reporting.closed_terminal import allow_closed_terminal
from engine.reporting.event_files import cut_event_files
from engine.reporting.log_rows import evaluation_row
from engine.storage.atomic_files import append_text
from engine.storage.file_errors import reraise_write_errors
from engine.storage.run_directory import RunDirectory, append_row


class Reporter:
    """Writes everything that a run reports. Only the chief writes.

    Args:
      run: the run directory to write to.
      total_examples: the length of the progress bar.
      done_examples: where the progress bar starts.
      is_chief: whether this process writes anything.
    """

    def __init__(self, run: RunDirectory, *, total_examples: int, done_examples: int, is_chief: bool = True):
        self._run = run
        self._is_chief = is_chief
        self._done_examples = done_examples
        self._bar = tqdm(
            total=total_examples,
            initial=done_examples,
            unit="ex",
            unit_scale=False,
            dynamic_ncols=True,
            smoothing=0.1,
            disable=None if is_chief else True,  # None: only on a terminal
        )
        if is_chief:
            cut_event_files(run.tensorboard, done_examples)
        with reraise_write_errors(run.tensorboard):
            self._writer = (
                tf.summary.create_file_writer(run.tensorboard)
                if is_chief
                else tf.summary.create_noop_writer()
            )

    def write_line(self, text: str) -> None:
        """Prints one or more lines above the progress bar and appends them to log.txt."""
        if not self._is_chief:
            return
        with allow_closed_terminal():
            self._bar.clear()
            print(text, flush=True)
            self._bar.refresh()
        append_text(self._run.console_log, text + "\n")

    def update_progress(self, examples: int) -> None:
        """Moves the progress bar to a position in examples."""
        with allow_closed_terminal():
            self._bar.update(examples - self._bar.n)

    def log_row(self, row: Mapping) -> None:
        """Writes a log event: a row of train.jsonl, TensorBoard scalars and a status line."""
        if not self._is_chief:
            return
        append_row(self._run.train_log, row)
        with self._writer.as_default(step=row["examples"]):
            for name, value in row.items():
                if name not in ("examples", "time_unix"):
                    tf.summary.scalar(name, value)
        self.write_line(self._status(row))

    def log_evaluation(self, evaluation: Evaluation, *, split: str, step: int, examples: int) -> None:
        """Writes an evaluation: a row of eval.jsonl, TensorBoard scalars and a line."""
        if not self._is_chief:
            return
        append_row(
            self._run.eval_log,
            evaluation_row(evaluation, split=split, step=step, examples=examples),
        )
        with self._writer.as_default(step=examples):
            for name, value in evaluation.metrics.items():
                tf.summary.scalar(f"{split}/{name}", value)
        measured = {"": evaluation.model} if evaluation.model else {}
        summary = "; ".join(
            f"{name} PSNR {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}, MAE {means['mae']:.2f}".strip()
            for name, means in (measured | dict(evaluation.reconstructions)).items()
        )
        images = f"{evaluation.examples} image{'' if evaluation.examples == 1 else 's'}"
        self.write_line(f"evaluated {images} of {split}: {summary or 'unpaired, so no metrics'}")

    def log_samples(self, grid: np.ndarray, *, examples: int) -> None:
        """Writes a sample grid: a PNG and a TensorBoard image."""
        if not self._is_chief:
            return
        path = os.path.join(self._run.samples, f"samples_{examples:08d}.png")
        with reraise_write_errors(path):
            tf.io.gfile.makedirs(self._run.samples)
            write_png(path, grid)
        with self._writer.as_default(step=examples):
            tf.summary.image("samples", grid[np.newaxis])

    def log_config(self, text: str) -> None:
        """Writes the configuration to TensorBoard."""
        with self._writer.as_default(step=self._done_examples):
            tf.summary.text("config", "```\n" + text + "\n```")

    def close(self) -> None:
        """Closes the progress bar and the TensorBoard file."""
        with allow_closed_terminal():
            self._bar.close()
        with reraise_write_errors(self._run.tensorboard):
            self._writer.close()

    def _status(self, row: Mapping) -> str:
        losses: dict[str, list[str]] = {}
        for name, value in row.items():
            kind, _, rest = name.partition("/")
            if kind == "loss":
                phase, _, term = rest.partition("/")
                losses.setdefault(phase, []).append(f"{term} {value:.3f}")
        rate = row["examples_per_sec"]
        # The last batch may go beyond the total.
        left_sec = max(0, self._bar.total - row["examples"]) / rate if rate else 0.0
        return (
            f"{row['examples']:>8}/{self._bar.total} ex  epoch {row['epoch']:.2f}  batch "
            f"{row['global_batch']}  "
            + "  ".join(f"{phase}: {' '.join(terms)}" for phase, terms in losses.items())
            + f"  {rate:.1f} ex/s  data wait {100 * row['data_wait_fraction']:.0f} %"
            f"  host {row['host_memory_bytes'] / 2**30:.1f} GiB  ETA {_clock(left_sec)}"
        )


def opening_line(
    experiment: Experiment,
    devices: Devices,
    networks: Mapping[str, keras.Model],
    *,
    examples: int,
    total: int,
) -> str:
    """The first line of a run: its position, devices, precision and networks."""
    if examples >= total:
        return f"already complete at {examples} examples; raise TOTAL_EXAMPLES to continue"
    parameters = ", ".join(f"{name} {trainable_parameters(network):,}" for name, network in networks.items())
    gpus = f" ({', '.join(map(str, devices.gpus))})" if experiment.gpus != "all" else ""
    return (
        f"{f'resuming at {examples} of' if examples else 'training'} "
        f"{total} examples ({experiment.data.train_examples} an epoch) on "
        f"{devices.replicas} x {devices.kind}{gpus}, "
        f"{experiment.precision}{', deterministic' if is_deterministic() else ''}"
        f"{', XLA' if experiment.jit_compile else ''}; parameters: {parameters}"
    )


def _clock(sec: float) -> str:
    hours, rest = divmod(round(sec), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
