"""Rows of train.jsonl and eval.jsonl. Their keys are a public format."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from engine.batching.batch_layout import BatchLayout
from engine.batching.noise_scale import NoiseScale
from engine.distribution.device_memory import peak_device_bytes
from engine.distribution.host_memory import resident_bytes
from engine.evaluation.results import SplitEvaluation


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
    """A row of train.jsonl, without the keys that `Speed` adds.

    Args:
      batch: the layout of the last step's batch.
      metrics: of the last step, by name.
      step: steps done.
      examples: examples drawn.
      examples_per_epoch: examples in the training split.
      noise_scales: of each phase whose gradient noise scale is measured, by its name.
      skipped_steps: of the whole run; None if no step may be skipped.
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


def evaluation_row(evaluation: SplitEvaluation, *, split: str, step: int, examples: int) -> dict:
    """A row of eval.jsonl."""
    return {
        "step": step,
        "examples": examples,
        "split": split,
        **{f"metric/{name}": value for name, value in evaluation.metrics.items()},
        **evaluation.remarks,
        "time_unix": time.time(),
    }


def interval_row(evaluation: SplitEvaluation) -> dict[str, float]:
    """The 95 % intervals of the metrics of an evaluation, for a row of eval.jsonl."""
    row = {}
    for name, (low, high) in evaluation.intervals.items():
        row[f"metric_low/{name}"], row[f"metric_high/{name}"] = low, high
    return row


class Speed:
    """Measures the speed of training since the last `read`.

    The first call of the loop includes compilation, so it is dropped as soon as there is another one.

    Args:
      device_names: devices whose memory is reported, if they tell it.
    """

    def __init__(self, *, device_names: Sequence[str] = ()) -> None:
        self._device_names = device_names
        self._reset()
        self._compiled = False

    def add(self, *, examples: int, steps: int, sec: float, wait_sec: float) -> None:
        """Adds a call of the loop.

        Args:
          examples: examples drawn in it.
          steps: steps done in it.
          sec: seconds it took.
          wait_sec: seconds of these that it waited for data.
        """
        if not self._compiled and self._steps:
            self._reset()
            self._compiled = True
        self._examples += examples
        self._steps += steps
        self._sec += sec
        self._wait_sec += wait_sec

    def read(self) -> dict[str, float]:
        """The keys of a row of train.jsonl that differ from run to run. Then restarts the measurement."""
        values = {
            "examples_per_sec": self._examples / self._sec,
            "sec_per_step": self._sec / self._steps,
            "data_wait_fraction": min(1.0, self._wait_sec / self._sec),
            "host_memory_bytes": resident_bytes(),
            **self._device_memory(),
            "time_unix": time.time(),
        }
        if self._compiled:
            self._reset()
        return values

    def _device_memory(self) -> dict[str, float]:
        peak = peak_device_bytes(self._device_names)
        return {} if peak is None else {"device_memory_bytes": peak}

    def _reset(self) -> None:
        self._examples = self._steps = 0
        self._sec = self._wait_sec = 0.0
