"""Calls of the compiled loop: how many steps each takes, and the batches it reads."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.distribution.devices import Devices
from engine.errors import OutOfMemoryError
from engine.experiment import Experiment
from engine.inner_loop.train_loop import LoopResult, TrainLoop
from engine.inner_loop.train_state import TrainState
from engine.input_pipeline.distributed_batches import distributed_batches, reraise_record_errors
from engine.outer_loop.periodic_action import PeriodicAction, steps_until_next
from engine.outer_loop.run_plan import RunPlan
from engine.outer_loop.schedule_state import ScheduleState
from engine.outer_loop.stall_watchdog import StallWatchdog

LOOP_SEC = 5.0
"""A call starts no step after this many seconds, so that signals are answered soon."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopCall:
    """One call of the compiled loop.

    Attributes:
      batch: the layout of its batches.
      result: what the loop returned.
      before: examples drawn before the call.
      sec: seconds that the call took.
    """

    batch: BatchLayout
    result: LoopResult
    before: int
    sec: float


class LoopCaller:
    """Calls the compiled loop of one run and advances the run's position.

    When the global batch changes, it makes a new iterator at the current position.

    Args:
      experiment: the settings.
      plan: the settings, resolved.
      devices: of the run.
      loop: the compiled loop.
      state: every variable of the run.
      schedule_state: gives the global batch and the factors on the learning rates.
      watchdog: reports calls that hang.

    Attributes:
      sec_per_step: seconds per step of the last call; infinite while the current batch size has not run.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: RunPlan,
        *,
        devices: Devices,
        loop: TrainLoop,
        state: TrainState,
        schedule_state: ScheduleState,
        watchdog: StallWatchdog,
    ):
        self._experiment = experiment
        self._plan = plan
        self._devices = devices
        self._loop = loop
        self._state = state
        self._schedule_state = schedule_state
        self._watchdog = watchdog
        self._iterator: tf.distribute.DistributedIterator = None
        self._batch: BatchLayout | None = None
        self.sec_per_step = math.inf

    def call(self, actions: Sequence[PeriodicAction], *, most_steps: int | None = None) -> LoopCall:
        """Runs at least one step, up to the next action, the next change of the batch, or for `LOOP_SEC`.

        Args:
          actions: of the run.
          most_steps: that the call may take; None if any number.

        Raises:
          ConfigurationError, data.errors.DataError: XLA refuses the step, or a record cannot be used.
          OutOfMemoryError: a step did not fit into memory.
        """
        before, step = int(self._state.examples.numpy()), int(self._state.step.numpy())
        with self._watchdog.watch(
            describe=lambda: f"stalled: waiting for the input to be opened at {before} examples",
        ):
            batch = self._batch_at(before)
        num_steps = self._num_steps(actions, before, batch)
        if most_steps is not None:
            num_steps = min(num_steps, most_steps)
        is_first = math.isinf(self.sec_per_step)
        began = time.monotonic()
        with self._watchdog.watch(
            position=self._loop.batches,
            describe=_Waiting(self._devices, self._loop, batch=batch, before=before, is_first=is_first),
            usual_sec=0.0 if is_first else self.sec_per_step,
        ):
            result = self._run_loop(batch, num_steps=num_steps, step=step, examples=before)
        sec = time.monotonic() - began
        self.sec_per_step = sec / result.steps
        self._state.step.assign(step + result.steps)
        self._state.examples.assign(before + result.steps * batch.global_batch)
        return LoopCall(batch=batch, result=result, before=before, sec=sec)

    def longest_next_call(self, batch: BatchLayout) -> tuple[float, int]:
        """How long the next call may take with the same batches.

        Args:
          batch: the layout of the last call's batches.

        Returns:
          Seconds, and the position that the call may reach.
        """
        sec = max(self.sec_per_step, min(LOOP_SEC, self.sec_per_step * self._experiment.steps_per_loop))
        steps = max(1, int(sec / self.sec_per_step))
        return sec, int(self._state.examples.numpy()) + steps * batch.global_batch

    def _batch_at(self, examples: int) -> BatchLayout:
        """The layout of the batches from a position on, with `self._iterator` at that position."""
        batch = self._plan.batches[self._schedule_state.global_batch(examples)]
        if batch is not self._batch:
            self._batch, self.sec_per_step = batch, math.inf
            self._iterator = distributed_batches(
                self._devices, self._experiment.data, position_examples=examples, plan=batch
            )
        return batch

    def _num_steps(self, actions: Sequence[PeriodicAction], examples: int, batch: BatchLayout) -> int:
        num_steps = steps_until_next(
            actions,
            examples=examples,
            total=self._plan.total_examples,
            boundary=self._plan.schedule.next_start(examples),
            global_batch=batch.global_batch,
        )
        # The first call with a batch size may compile, so it runs one step, which also measures the time.
        affordable = 1 if math.isinf(self.sec_per_step) else max(1, int(LOOP_SEC / self.sec_per_step))
        return min(num_steps, affordable, self._experiment.steps_per_loop)

    def _run_loop(self, batch: BatchLayout, *, num_steps: int, step: int, examples: int) -> LoopResult:
        try:
            with reraise_record_errors(self._experiment.data, "train", examples):
                return self._loop.run(
                    self._iterator,
                    num_steps=num_steps,
                    step=step,
                    examples=examples,
                    layout=batch,
                    warmup=self._schedule_state.warmup(),
                    plateau_factors=self._schedule_state.plateau_factors(),
                    within_sec=LOOP_SEC,
                )
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(examples=examples, micro_batch=batch.micro_batch) from error


class _Waiting:
    """Says what a call of the compiled loop is waiting for.

    Args:
      devices: of the run.
      loop: that is called.
      batch: the layout of its batches.
      before: examples drawn before the call.
      is_first: whether it is the first call with this batch size, which may compile.
    """

    def __init__(self, devices: Devices, loop: TrainLoop, *, batch: BatchLayout, before: int, is_first: bool):
        self._devices = devices
        self._loop = loop
        self._batch = batch
        self._before = before
        self._is_first = is_first
        self._arrived_before = loop.batches()[1]

    def __call__(self) -> str:
        asked, arrived = self._loop.batches()
        done = arrived - self._arrived_before
        size = self._batch.global_batch
        position = self._before + done * size
        if asked > arrived:
            # The workers agree on whether each has a batch.
            other = (
                ", or wait for another worker, whose output says why" if self._devices.is_multi_worker else ""
            )
            return (
                f"stalled: waiting for input: the batch of examples {position} to {position + size - 1} has "
                f"not arrived; check that the data set can be read{other}"
            )
        other = ""
        if self._devices.is_multi_worker:
            other = ", or an all-reduce waits for another worker, whose output says why"
        elif self._devices.replicas > 1:
            other = ", or an all-reduce waits for one of them"
        if self._is_first:
            return f"compiling the first step with batches of {size}{other if done else ''}"
        return (
            f"stalled: the step at {position - size} examples does not end; its batch has arrived, so the "
            f"devices compute{other}"
        )
