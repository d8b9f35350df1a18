"""Rows of train.jsonl and eval.jsonl: a public format."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psutil

from engine.batching.batch_layout import BatchLayout
from engine.batching.noise_scale import NoiseScale
from engine.evaluation.evaluator import Evaluation


def training_row(
    batch: BatchLayout,
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
