"""What a run tells: console and log.txt, train.jsonl, eval.jsonl, TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import keras
import numpy as np
import psutil
import tensorflow as tf
from tqdm import tqdm

from engine.batch_plan import BatchPlan
from engine.determinism import is_deterministic
from engine.evaluation import Evaluation
from engine.experiment import Experiment
from engine.gpus import numbers_in_use
from engine.noise_scale import NoiseScale
from engine.run_directory import RunDirectory, append_row
from engine.safe_files import append_text, explained_writing
from engine.samples import write_png
from engine.state import trainable_parameters


class Reporter:
    """Writes everything a run reports; silent on workers other than the chief.

    Args:
      run: where it is written.
      total_examples, done_examples: the length of the progress bar and where it starts.
      is_chief: whether this process writes at all.
    """

    def __init__(self, run: RunDirectory, *, total_examples: int, done_examples: int, is_chief: bool = True):
        self._run = run
        self._is_chief = is_chief
        self._bar = tqdm(
            total=total_examples,
            initial=done_examples,
            unit="ex",
            unit_scale=False,
            dynamic_ncols=True,
            smoothing=0.1,
            disable=None if is_chief else True,  # None: only on a terminal
        )
        with explained_writing(run.tensorboard):
            self._writer = (
                tf.summary.create_file_writer(run.tensorboard)
                if is_chief
                else tf.summary.create_noop_writer()
            )

    def line(self, text: str) -> None:
        """Prints one or more lines above the progress bar and appends them to log.txt."""
        if not self._is_chief:
            return
        self._bar.clear()
        print(text, flush=True)
        self._bar.refresh()
        append_text(self._run.console_log, text + "\n")

    def progress(self, examples: int) -> None:
        self._bar.update(examples - self._bar.n)

    def log_row(self, row: Mapping) -> None:
        """One log event: a row in train.jsonl, scalars, a status line."""
        if not self._is_chief:
            return
        append_row(self._run.train_log, row)
        with self._writer.as_default(step=row["examples"]):
            for name, value in row.items():
                if name not in ("examples", "time_unix"):
                    tf.summary.scalar(name, value)
        self.line(self._status(row))

    def evaluation(self, evaluation: Evaluation, *, split: str, step: int, examples: int) -> None:
        """One evaluation: a row in eval.jsonl, scalars, a line."""
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
        told = "; ".join(
            f"{name} PSNR {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}, MAE {means['mae']:.2f}".strip()
            for name, means in (measured | dict(evaluation.reconstructions)).items()
        )
        self.line(
            f"evaluated {evaluation.examples} images of {split}: {told or 'nothing to compare them with'}"
        )

    def samples(self, grid: np.ndarray, *, examples: int) -> None:
        """A grid of pictures: a PNG and a TensorBoard image."""
        if not self._is_chief:
            return
        path = os.path.join(self._run.samples, f"samples_{examples:08d}.png")
        with explained_writing(path):
            tf.io.gfile.makedirs(self._run.samples)
            write_png(path, grid)
        with self._writer.as_default(step=examples):
            tf.summary.image("samples", grid[np.newaxis])

    def config_text(self, text: str) -> None:
        """The configuration as TensorBoard text."""
        with self._writer.as_default(step=0):
            tf.summary.text("config", "```\n" + text + "\n```")

    def close(self) -> None:
        self._bar.close()
        with explained_writing(self._run.tensorboard):
            self._writer.close()

    def _status(self, row: Mapping) -> str:
        losses = {}
        for name, value in row.items():
            kind, _, rest = name.partition("/")
            if kind == "loss":
                phase, _, term = rest.partition("/")
                losses.setdefault(phase, []).append(f"{term} {value:.3f}")
        rate = row["examples_per_sec"]
        left_sec = (self._bar.total - row["examples"]) / rate if rate else 0.0
        return (
            f"{row['examples']:>8}/{self._bar.total} ex  epoch {row['epoch']:.2f}  batch "
            f"{row['global_batch']}  "
            + "  ".join(f"{phase}: {' '.join(terms)}" for phase, terms in losses.items())
            + f"  {rate:.1f} ex/s  data wait {100 * row['data_wait_fraction']:.0f} %"
            f"  host {row['host_memory_bytes'] / 2**30:.1f} GiB  left {_clock(left_sec)}"
        )


def opening_line(
    experiment: Experiment,
    strategy: tf.distribute.Strategy,
    networks: Mapping[str, keras.Model],
    *,
    examples: int,
    total: int,
) -> str:
    """What is about to be trained, on what, from where."""
    if examples >= total:
        return f"complete already: {examples} examples; raise TOTAL_EXAMPLES to go on"
    parameters = ", ".join(f"{name} {trainable_parameters(network):,}" for name, network in networks.items())
    gpus = f" ({', '.join(map(str, numbers_in_use()))})" if experiment.gpus != "all" else ""
    return (
        f"{f'resuming at {examples} of' if examples else 'training'} "
        f"{total} examples ({experiment.data.train_examples} an epoch) on "
        f"{strategy.num_replicas_in_sync} x {strategy.extended.worker_devices[0].split(':')[-2]}{gpus}, "
        f"{experiment.precision}{', deterministic' if is_deterministic() else ''}"
        f"{', XLA' if experiment.jit_compile else ''}; parameters: {parameters}"
    )


def training_row(
    batch: BatchPlan,
    metrics: Mapping[str, float],
    *,
    step: int,
    examples: int,
    examples_per_epoch: int,
    noise_scales: Mapping[str, NoiseScale],
    skipped_steps: int | None,
) -> dict:
    """A row of train.jsonl, without what `Speed` adds.

    Args:
      batch, metrics: of the step just done.
      step, examples: done by then.
      noise_scales: of each phase that is measured.
      skipped_steps: of the whole run; None where none may be skipped.
    """
    return {
        "step": step,
        "examples": examples,
        "epoch": examples / examples_per_epoch,
        "global_batch": batch.global_batch,
        "per_replica_batch": batch.per_replica_batch,
        "accumulation": batch.accumulation,
        "replicas": batch.replicas,
        **metrics,
        **{f"noise_scale/{phase}": scale.value().noise_scale for phase, scale in noise_scales.items()},
        **({} if skipped_steps is None else {"skipped_steps": skipped_steps}),
    }


def evaluation_row(evaluation: Evaluation, *, split: str, step: int, examples: int) -> dict:
    """A row of eval.jsonl."""
    return {
        "step": step,
        "examples": examples,
        "split": split,
        **{f"metric/{name}": value for name, value in evaluation.metrics.items()},
        "time_unix": time.time(),
    }


def host_memory_bytes() -> int:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss


class Speed:
    """Examples and seconds since it was last read.

    The first loop call, in which the step is compiled, is left out where there is a later one.
    """

    def __init__(self):
        self._reset()
        self._compiled = False

    def _reset(self):
        self._examples = self._steps = 0
        self._sec = self._wait_sec = 0.0

    def add(self, *, examples: int, steps: int, sec: float, wait_sec: float) -> None:
        if not self._compiled and self._steps:
            self._reset()
            self._compiled = True
        self._examples += examples
        self._steps += steps
        self._sec += sec
        self._wait_sec += wait_sec

    def read(self) -> dict[str, float]:
        """The volatile keys of a row of train.jsonl; starts anew."""
        values = {
            "examples_per_sec": self._examples / self._sec,
            "sec_per_step": self._sec / self._steps,
            "data_wait_fraction": min(1.0, self._wait_sec / self._sec),
            "host_memory_bytes": host_memory_bytes(),
            "time_unix": time.time(),
        }
        if self._compiled:
            self._reset()
        return values


def _clock(sec: float) -> str:
    hours, rest = divmod(round(sec), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
