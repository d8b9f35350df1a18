"""The outer loop: what runs between two looks of Python at the run, and what happens then."""

from __future__ import annotations

import dataclasses
import math
import time

import keras
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.distribution.determinism import set_determinism
from engine.distribution.precision import set_precision
from engine.distribution.replica_consistency import ReplicaConsistencyCheck
from engine.distribution.strategies import is_chief, make_strategy, needs_static_shapes, smallest_of_workers
from engine.distribution.worker_sync import WorkerSync
from engine.errors import DivergenceError, OutOfMemoryError, RunInterruptedError, not_finite
from engine.evaluation.evaluator import Evaluator
from engine.experiment import Experiment
from engine.inner_loop.train_loop import LoopResult, TrainLoop
from engine.inner_loop.train_state import build_state
from engine.input_pipeline.distributed_batches import distributed_batches, reraise_record_errors
from engine.outer_loop.nan_policy import NanPolicy, initial_counts
from engine.outer_loop.periodic_action import steps_until_next
from engine.outer_loop.preemption import PreemptionHandler
from engine.outer_loop.run_actions import LoopCall, RunActions
from engine.outer_loop.run_plan import plan_run
from engine.outer_loop.schedule_state import ScheduleState, initial_schedule_state
from engine.outer_loop.wall_time import WallTime
from engine.reporting.reporter import Reporter, opening_line
from engine.storage import checkpoints
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.run_directory import RunDirectory

LOOP_SEC = 5.0
"""No step of a call of the compiled loop begins later than this, so that signals are answered."""

_ASSUMED_BYTES_PER_SEC = 50e6  # of a save, before the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a call of `Trainer.run` ended.

    Args:
      step, examples: where the run stands.
      split: the best one to evaluate the run on: "test", or without one that of training's evaluations.
      metrics: of the last step, by name as in a row of train.jsonl; empty if this call did none.
      train_sec: seconds this call took.
    """

    step: int
    examples: int
    split: str
    metrics: dict[str, float]
    train_sec: float


class Trainer:
    """One run: its devices, networks, schedule and files.

    Building it chooses devices and sets Keras's precision, so one process holds one trainer at a time.

    Args:
      experiment: the settings.
      run: the run directory; it exists.
      config_text: the configuration as text, for TensorBoard.

    Raises:
      ConfigurationError, data.errors.DataError: the settings cannot work.
    """

    def __init__(self, experiment: Experiment, run: RunDirectory, *, config_text: str = ""):
        self.experiment = experiment
        self.run_directory = run
        self._config_text = config_text
        keras.backend.clear_session()  # a trainer made earlier in a notebook leaves no trace
        set_determinism(experiment.determinism, seed=experiment.seed)
        set_precision(experiment.precision)
        self.strategy = make_strategy(
            experiment.strategy, cpu_replicas=experiment.cpu_replicas, gpus=experiment.gpus
        )
        data = experiment.data
        self.plan = plan_run(
            experiment,
            replicas=self.strategy.num_replicas_in_sync,
            largest_micro_batch=smallest_of_workers(self.strategy, experiment.largest_micro_batch),
            static_shapes=needs_static_shapes(self.strategy),
        )
        optimizers = experiment.task.optimizers
        # A run that goes on has its own weights, and the files may be gone.
        new = not checkpoints.list_checkpoints(run.checkpoints)
        self.state = build_state(
            experiment.task,
            data.example_spec,
            strategy=self.strategy,
            seed=experiment.seed,
            initial_weights=experiment.initial_weights if new else None,
            decisions=initial_schedule_state(self.plan.schedule, optimizers) | initial_counts(),
            noise_settings=self.plan.noise_settings,
        )
        self._decisions = ScheduleState(
            schedule=self.plan.schedule,
            scaling=self.plan.scaling,
            optimizers=optimizers,
            variables=self.state.decisions,
        )
        self.loop = TrainLoop(
            task=experiment.task,
            strategy=self.strategy,
            train_state=self.state,
            scaling=self.plan.scaling,
            seed=experiment.seed,
            jit_compile=experiment.jit_compile,
            undo_non_finite=experiment.on_non_finite == "skip",
        )
        self._non_finite = NanPolicy(experiment.on_non_finite, self.state.decisions)
        self.evaluator = Evaluator(
            task=experiment.task,
            strategy=self.strategy,
            data=data,
            networks=self.state.evaluation_networks,
        )
        checks = experiment.check_replicas_every and self.strategy.num_replicas_in_sync > 1
        self._replica_check = (
            ReplicaConsistencyCheck(self.strategy, self.state.variables()) if checks else None
        )
        self.is_chief = is_chief(self.strategy)
        self._saver = AsyncCheckpointer(is_chief=self.is_chief)
        self._wall_time = WallTime(experiment.max_wall_time)
        self._agreement = WorkerSync(self.strategy)
        self._restored_at: int | None = None

    @property
    def step(self) -> int:
        return int(self.state.step.numpy())

    @property
    def examples(self) -> int:
        return int(self.state.examples.numpy())

    def restore(self) -> int | None:
        """Goes back to the newest undamaged checkpoint of the run; None if there is none yet."""
        directory = self.run_directory.checkpoints
        self._saver.wait()
        if self.is_chief:
            checkpoints.clean_up(directory)
            checkpoints.clean_up(self.run_directory.best)
        smallest_of_workers(self.strategy, 0)  # the others look when the chief is done
        newest = checkpoints.newest_undamaged(directory)
        position = smallest_of_workers(self.strategy, -1 if newest is None else newest)
        if position >= 0:
            checkpoints.load(self.state, directory, position)
        self._restored_at = position if position >= 0 else None
        return self._restored_at

    def run(self) -> Summary:
        """Trains from where the run stands to its end, and marks it DONE.

        Raises:
          RunInterruptedError: SIGINT or SIGTERM came, to this worker or to another; the state is saved.
          DivergenceError: a loss or gradient was not finite; the last checkpoint is from before it.
          ReplicaMismatchError: likewise, and the settings ask for it to be found out.
          ConfigurationError: something could not be written; what was saved before is all there.
          OutOfMemoryError: a step did not fit; smaller micro-batches may.
        """
        started = time.monotonic()
        if self.is_chief:
            self.run_directory.clear_leftovers()
            self.run_directory.cut_logs(self.examples)
            self.run_directory.clear_done()
        reporter = Reporter(
            self.run_directory,
            total_examples=self.plan.total_examples,
            done_examples=self.examples,
            is_chief=self.is_chief,
        )
        try:
            reporter.config_text(self._config_text)
            opening = {"examples": self.examples, "total": self.plan.total_examples}
            reporter.line(opening_line(self.experiment, self.strategy, self.state.networks, **opening))
            events = self._events(reporter)
            with PreemptionHandler() as interruption:
                self._train(events, interruption)
                self._saver.wait()
            smallest_of_workers(self.strategy, 0)  # none ends before the chief has written everything
        finally:
            self._saver.close()
            reporter.close()
        data = self.experiment.data
        summary = Summary(
            step=self.step,
            examples=self.examples,
            split="test" if "test" in getattr(data, "splits", ()) else data.evaluation_split,
            metrics=events.last.result.metrics if events.last else {},
            train_sec=time.monotonic() - started,
        )
        if self.is_chief:
            self.run_directory.mark_done({"step": summary.step, "examples": summary.examples})
        return summary

    def _events(self, reporter: Reporter) -> RunActions:
        return RunActions(
            self.experiment,
            self.run_directory,
            state=self.state,
            evaluator=self.evaluator,
            decisions=self._decisions,
            non_finite=self._non_finite,
            replica_check=self._replica_check,
            saver=self._saver,
            reporter=reporter,
            saved_at=self._restored_at,
        )

    def _train(self, events: RunActions, interruption: PreemptionHandler) -> None:
        total = self.plan.total_examples
        batch, sec_per_step = None, math.inf
        if self.examples < total:
            self._wall_time.check_beginning()
        while self.examples < total:
            due = self.plan.batches[self._decisions.global_batch(self.examples)]
            if due is not batch:
                batch, sec_per_step = due, math.inf
                iterator = distributed_batches(
                    self.strategy, self.experiment.data, position_examples=self.examples, plan=batch
                )
            call = self._call_loop(iterator, batch, num_steps=self._num_steps(events, batch, sec_per_step))
            sec_per_step = call.sec / call.result.steps
            self._non_finite.after_loop(finite=call.result.finite, steps=call.result.steps)
            if not call.result.finite:
                self._go_on_or_diverge(events, call.result)
            events.after(call, total=total, wall_time=self._wall_time)
            self._saver.check()
            if self._time_is_nearly_over(events, batch, sec_per_step):
                interruption.request(f"max_wall_time = {self._wall_time.limit!r} is nearly over")
            # Workers that did different numbers of steps, or saved at different ones, would wait for ever.
            stop, sec_per_step = self._agreement.reach(
                stop=interruption.requested is not None, sec_per_step=sec_per_step
            )
            if stop and self.examples < total:
                self._stop(events, interruption.requested or "another worker was asked to stop")

    def _num_steps(self, events: RunActions, batch: BatchLayout, sec_per_step: float) -> int:
        """Steps of the next call of the loop: to the next event or batch, and no longer than LOOP_SEC."""
        num_steps = steps_until_next(
            events.actions,
            examples=self.examples,
            total=self.plan.total_examples,
            boundary=self.plan.schedule.next_start(self.examples),
            global_batch=batch.global_batch,
        )
        # The first call for a batch, which may compile, does one step and tells how long one is.
        affordable = 1 if math.isinf(sec_per_step) else max(1, int(LOOP_SEC / sec_per_step))
        return min(num_steps, affordable, self.experiment.steps_per_loop)

    def _call_loop(self, iterator, batch: BatchLayout, *, num_steps: int) -> LoopCall:
        """Calls the compiled loop and moves the run's position by what it did."""
        before, began = self.examples, time.monotonic()
        try:
            with reraise_record_errors(self.experiment.data, "train", before):
                result = self.loop.run(
                    iterator,
                    num_steps=num_steps,
                    step=self.step,
                    examples=before,
                    plan=batch,
                    warmup=self._decisions.warmup(),
                    plateau_factors=self._decisions.plateau_factors(),
                    within_sec=LOOP_SEC,
                )
        except tf.errors.ResourceExhaustedError as error:
            self._saver.wait()
            raise OutOfMemoryError(examples=before, micro_batch=batch.micro_batch) from error
        sec = time.monotonic() - began
        self.state.step.assign(self.step + result.steps)
        self.state.examples.assign(before + result.steps * batch.global_batch)
        return LoopCall(batch=batch, result=result, before=before, sec=sec)

    def _time_is_nearly_over(self, events: RunActions, batch: BatchLayout, sec_per_step: float) -> bool:
        """Whether the next call of the loop, what follows it and a save may be too long for max_wall_time."""
        total, examples = self.plan.total_examples, self.examples
        loop_sec = max(sec_per_step, min(LOOP_SEC, sec_per_step * self.experiment.steps_per_loop))
        reached = examples + batch.global_batch * max(1, int(loop_sec / sec_per_step))
        return self._wall_time.is_nearly_over(
            [action for action in events.actions if action.is_due(examples, reached, total)],
            loop_sec=loop_sec,
            save_sec=self._saver.write_sec or self.state.size_bytes / _ASSUMED_BYTES_PER_SEC,
        )

    def _stop(self, events: RunActions, reason: str) -> None:
        if events.saved_at != self.examples:
            events.save()
        self._saver.wait()
        # None ends before the chief's files are complete: whoever sees a worker end may end the others.
        self._agreement.reach(stop=True, sec_per_step=0.0)
        raise RunInterruptedError(
            f"{reason}: saved at {self.examples} of {self.plan.total_examples} examples; the same command "
            "continues the run"
        )

    def _go_on_or_diverge(self, events: RunActions, result: LoopResult) -> None:
        """Does about a step that was not finite what the settings say."""
        policy = self._non_finite
        self._saver.wait()  # what it says of the last checkpoint is then true
        why = policy.why_stop(saved_at=events.saved_at)
        if why is not None:
            raise DivergenceError(result.metrics, step=self.step, saved_at=events.saved_at, why=why)
        done = f"left out; {policy.skipped} such steps so far"
        if policy.policy == "restore":
            with policy.going_back(self.state):
                events.saved_at = self.restore()
            done = f"back to the weights of {events.saved_at} examples, and on with the next batch"
        events.reporter.line(f"step {self.step}: {not_finite(result.metrics)} not finite: {done}")
