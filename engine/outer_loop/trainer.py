"""The outer loop: calls the compiled loop, runs the actions between calls, and saves and stops on request."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Mapping

import keras

from engine.distribution.determinism import set_determinism
from engine.distribution.devices import make_devices
from engine.distribution.gpu_options import set_gpu_options
from engine.distribution.precision import set_precision
from engine.distribution.replica_consistency import ReplicaConsistencyCheck
from engine.distribution.worker_sync import WorkerSync
from engine.distribution.xla import needs_static_shapes
from engine.errors import DivergenceError, OutOfMemoryError, RunInterruptedError, not_finite
from engine.evaluation.split_evaluator import check_targets, make_evaluator
from engine.experiment import Experiment
from engine.gin_config.diff import plain_settings
from engine.gin_config.free_settings import free_to_change
from engine.inner_loop.train_loop import LoopResult, TrainLoop
from engine.inner_loop.train_state import TrainState, build_state
from engine.outer_loop.best_checkpoint import BestCheckpoint, check_measured
from engine.outer_loop.loop_calls import LoopCaller
from engine.outer_loop.nan_policy import NanPolicy, initial_counts
from engine.outer_loop.preemption import PreemptionHandler
from engine.outer_loop.profiling import ProfilerWindow
from engine.outer_loop.rate_warnings import ZeroRates, find_zero_rates
from engine.outer_loop.restoring import restore_newest
from engine.outer_loop.run_actions import RunActions
from engine.outer_loop.run_plan import RunPlan, plan_run, warm_up_lines
from engine.outer_loop.schedule_state import ScheduleState, initial_schedule_state
from engine.outer_loop.stall_watchdog import StallWatchdog
from engine.outer_loop.stopping import EarlyStop, initial_stopping_state, stopping_lines
from engine.outer_loop.wall_time import WallTime
from engine.reporting.reporter import Reporter, opening_line
from engine.storage import checkpoints
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.run_directory import RunDirectory
from engine.training_data import target_statistics

_ASSUMED_BYTES_PER_SEC = 50e6  # speed of a save before the first one was measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of `Trainer.run`.

    Attributes:
      step: steps done.
      examples: examples drawn.
      split: the split to evaluate the run on: "test" if there is one, else the evaluation split.
      metrics: of the last step, by name as in train.jsonl; empty if this call trained no step.
      train_sec: seconds that this call took.
      stopped_early: why and where the run ended before its total; None if it reached it.
    """

    step: int
    examples: int
    split: str
    metrics: dict[str, float]
    train_sec: float
    stopped_early: str | None


class Trainer:
    """One run: its devices, networks, schedules and files.

    A trainer sets the devices and Keras's precision of the process, so use one trainer at a time.

    Args:
      experiment: the settings.
      run: the run directory; it exists.
      config_text: the configuration as text, for TensorBoard.

    Attributes:
      experiment: as given, with the lengths of its data as numbers.
      run_directory: as given.
      devices: of the run.
      sync: exchanges values with the other workers.
      plan: the settings, resolved.
      state: every variable of the run.
      loop: the compiled loop.
      evaluator: of the networks, or of their moving averages if there are any.

    Raises:
      ConfigurationError, data.errors.DataError: the settings cannot work.
    """

    def __init__(self, experiment: Experiment, run: RunDirectory, *, config_text: str = ""):
        self.experiment = experiment = experiment.with_data_lengths()
        self.run_directory = run
        self._config_text = config_text
        keras.backend.clear_session()  # a notebook may have made a trainer before
        set_determinism(experiment.determinism, seed=experiment.seed)
        set_precision(experiment.precision)
        set_gpu_options(
            tf32=experiment.tf32,
            cudnn_autotune=experiment.cudnn_autotune,
            cuda_malloc_async=experiment.cuda_malloc_async,
        )
        self.devices = make_devices(
            experiment.strategy, cpu_replicas=experiment.cpu_replicas, gpus=experiment.gpus
        )
        self.sync = WorkerSync(self.devices)
        self.plan = self._resolve_plan()
        check_targets(experiment.task, experiment.data)
        self.state = self._build_state()
        self._schedule_state = ScheduleState(
            schedule=self.plan.schedule,
            scaling=self.plan.scaling,
            optimizers=experiment.task.optimizers,
            variables=self.state.outer_loop_state,
        )
        self.loop = TrainLoop(
            task=experiment.task,
            devices=self.devices,
            train_state=self.state,
            scaling=self.plan.scaling,
            seed=experiment.seed,
            jit_compile=experiment.jit_compile,
            undo_non_finite=experiment.on_non_finite == "skip",
            label_roles=getattr(experiment.data, "label_roles", ()),
            recompute=experiment.recompute,
            adversarial_start=self.plan.adversarial_start,
        )
        self._nan_policy = NanPolicy(experiment.on_non_finite, self.state.outer_loop_state)
        self.evaluator = make_evaluator(
            task=experiment.task,
            devices=self.devices,
            data=experiment.data,
            networks=self.state.evaluation_networks,
            extractor=experiment.feature_extractor,
            more_metrics=experiment.metrics,
            lpips=experiment.lpips,
        )
        check_measured(experiment, self.evaluator)
        self._early_stop = EarlyStop(
            self.plan.stopping,
            total_examples=self.plan.total_examples,
            examples_per_epoch=experiment.data.train_examples,
            variables=self.state.outer_loop_state,
        )
        self._replica_check: ReplicaConsistencyCheck | None = None
        if experiment.check_replicas_every and self.devices.replicas > 1:
            self._replica_check = ReplicaConsistencyCheck(self.devices, self.state.variables())
        self._checkpointer = AsyncCheckpointer(is_chief=self.devices.is_chief)
        self._wall_time = WallTime(experiment.max_wall_time)
        self._restored_at: int | None = None

    def _resolve_plan(self) -> RunPlan:
        largest = self.experiment.largest_micro_batch
        if isinstance(largest, int):  # workers may have measured different limits
            largest = self.sync.minimum(largest)
        return plan_run(
            self.experiment,
            replicas=self.devices.replicas,
            largest_micro_batch=largest,
            static_shapes=needs_static_shapes(self.devices, jit_compile=self.experiment.jit_compile),
        )

    def _build_state(self) -> TrainState:
        experiment = self.experiment
        # A run with checkpoints has its own weights; the files of initial weights need not exist any more.
        is_new = not checkpoints.list_checkpoints(self.run_directory.checkpoints)
        schedules = initial_schedule_state(self.plan.schedule, experiment.task.optimizers)
        return build_state(
            experiment.task,
            experiment.data.example_spec,
            strategy=self.devices.strategy,
            seed=experiment.seed,
            initial_weights=self._set_initial_weights if is_new else None,
            outer_loop_state=schedules | initial_counts() | initial_stopping_state(self.plan.stopping),
            noise_settings=self.plan.noise_settings,
            parameter_groups=experiment.parameter_groups,
        )

    def _set_initial_weights(self, networks: Mapping[str, keras.Model]) -> None:
        experiment = self.experiment
        experiment.task.set_initial_weights(networks, target_statistics=target_statistics(experiment.data))
        if experiment.initial_weights is not None:
            experiment.initial_weights(networks)

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step.numpy())

    @property
    def examples(self) -> int:
        """Examples drawn: the position of the run."""
        return int(self.state.examples.numpy())

    def restore(self) -> int | None:
        """Restores the newest undamaged checkpoint of the run.

        Returns:
          Its position in examples; None if there is no checkpoint yet.

        Raises:
          ConfigurationError: all checkpoints are damaged, or the newest one does not fit the networks.
        """
        self._checkpointer.wait()
        self._restored_at = restore_newest(
            self.state, self.run_directory, devices=self.devices, sync=self.sync
        )
        return self._restored_at

    def forget_best(self) -> None:
        """Lets the next evaluation be the best, and saves that: for a run that goes on by another metric.

        Raises:
          ConfigurationError: the checkpoint could not be written.
        """
        self.state.best.assign(math.nan)
        if self._restored_at is not None:
            keep = self.experiment.keep_checkpoints
            self._checkpointer.save(self.state, self.run_directory.checkpoints, keep=keep)
            self._checkpointer.wait()
            self.sync.barrier()

    def run(self) -> Summary:
        """Trains from the current position to the end of the run, and marks the run as done.

        Raises:
          RunInterruptedError: this worker or another got SIGINT or SIGTERM; the state is saved.
          DivergenceError: a loss or gradient is not finite; the last checkpoint is from before it.
          ReplicaMismatchError: replicas differ; the last checkpoint is from before it.
          ConfigurationError: a file could not be written; everything saved before is intact.
          OutOfMemoryError: a step did not fit into memory; smaller micro-batches may.
        """
        self._schedule_state.check_replicas(self.experiment)
        self.evaluator.prepare()  # raises now what would otherwise end the first evaluation
        started = time.monotonic()
        if self.devices.is_chief:
            self.run_directory.clear_leftovers()
            self.run_directory.cut_logs(self.examples)
            self.run_directory.clear_done()
        is_chief = self.devices.is_chief
        reporter = self._make_reporter()
        try:
            reporter.log_config(self._config_text)
            zero_rates = find_zero_rates(self.plan, self.experiment.task)
            if goes_on := self._early_stop.resume(self.examples):
                reporter.write_line(goes_on)
            self._write_opening(reporter, zero_rates)
            actions = self._make_actions(reporter, zero_rates)
            # Each worker says itself what it waits for.
            report = reporter.write_line if is_chief else functools.partial(print, flush=True)
            with (
                PreemptionHandler() as preemption,
                StallWatchdog(self.experiment.report_stalls_after, report=report) as watchdog,
                contextlib.closing(self._make_profiler()) as profiler,
            ):
                self._train(actions, preemption, watchdog, profiler)
                self._checkpointer.wait()
            self.sync.barrier()  # no worker ends before the chief has written everything
        finally:
            self._checkpointer.close()
            reporter.close()
        summary = self._summary(actions, train_sec=time.monotonic() - started)
        if is_chief:
            done: dict[str, object] = {"step": summary.step, "examples": summary.examples}
            if summary.stopped_early:
                done["stopped_early"] = summary.stopped_early
            self.run_directory.mark_done(done)
        return summary

    def _write_opening(self, reporter: Reporter, zero_rates: ZeroRates) -> None:
        total, networks = self.plan.total_examples, self.state.networks
        reporter.write_line(
            self._early_stop.reason(self.examples)
            or opening_line(self.experiment, self.devices, networks, examples=self.examples, total=total)
        )
        if not self._is_complete:
            lines = warm_up_lines(self.plan, self.experiment.task)
            for line in (*stopping_lines(self.plan), *lines, *self.state.groups.lines()):
                reporter.write_line(line)
            for line in zero_rates.plan_lines():
                reporter.write_line(f"warning: {line}")

    @property
    def _is_complete(self) -> bool:
        return self.examples >= self.plan.total_examples or self._early_stop.is_over

    def _make_reporter(self) -> Reporter:
        experiment = self.experiment
        return Reporter(
            self.run_directory,
            total_examples=self.plan.total_examples,
            done_examples=self.examples,
            is_chief=self.devices.is_chief,
            examples_per_epoch=experiment.data.train_examples,
            hyper_parameters=plain_settings(self._config_text, leave_out=free_to_change(experiment)),
            tracker=experiment.tracker,
            device_names=self.devices.names,
        )

    def _make_profiler(self) -> ProfilerWindow:
        return ProfilerWindow(
            self.experiment,
            self.run_directory.tensorboard,
            start_examples=self.examples,
            records=self.devices.is_chief,
        )

    def _make_actions(self, reporter: Reporter, zero_rates: ZeroRates) -> RunActions:
        return RunActions(
            self.experiment,
            self.run_directory,
            state=self.state,
            evaluator=self.evaluator,
            schedule_state=self._schedule_state,
            nan_policy=self._nan_policy,
            early_stop=self._early_stop,
            best=BestCheckpoint(self.plan.best_metric, self.state.best),
            replica_check=self._replica_check,
            checkpointer=self._checkpointer,
            zero_rates=zero_rates,
            reporter=reporter,
            saved_at=self._restored_at,
            device_names=self.devices.names,
        )

    def _summary(self, actions: RunActions, *, train_sec: float) -> Summary:
        data, last = self.experiment.data, actions.last_call
        return Summary(
            step=self.step,
            examples=self.examples,
            split="test" if "test" in getattr(data, "splits", ()) else data.evaluation_split,
            metrics=last.result.metrics if last else {},
            train_sec=train_sec,
            stopped_early=self._early_stop.reason(self.examples),
        )

    def _train(
        self,
        actions: RunActions,
        preemption: PreemptionHandler,
        watchdog: StallWatchdog,
        profiler: ProfilerWindow,
    ) -> None:
        total = self.plan.total_examples
        if not self._is_complete:
            self._wall_time.check_start()
        # TOTAL_EXAMPLES was lowered to less than the run has drawn, so it ends here.
        elif not self.sync.minimum(int(actions.is_evaluated)):
            actions.evaluate()
            actions.sample()
        caller = LoopCaller(
            self.experiment,
            self.plan,
            devices=self.devices,
            loop=self.loop,
            state=self.state,
            schedule_state=self._schedule_state,
            watchdog=watchdog,
        )
        while not self._is_complete:
            try:
                call = caller.call(actions.periodic, most_steps=profiler.before_call(self.examples))
            except OutOfMemoryError:
                self._checkpointer.wait()
                raise
            profiler.after_call(call.result.steps)
            self.run_directory.check_lock()  # before anything is written
            self._nan_policy.after_loop(finite=call.result.finite, steps=call.result.steps)
            if not call.result.finite:
                self._continue_or_diverge(actions, call.result)
            actions.run_due(call, total=total, wall_time=self._wall_time)
            self._checkpointer.check()
            if self._time_is_nearly_over(actions, *caller.longest_next_call(call.batch)):
                preemption.request_stop(f"max_wall_time = {self._wall_time.limit!r} is nearly over")
            # Workers that do different numbers of steps, or save at different steps, would wait forever.
            with watchdog.watch(
                describe=lambda: "stalled: waiting for another worker, whose output says why"
            ):
                stop, caller.sec_per_step = self.sync.all_reduce(
                    stop=preemption.stop_reason is not None, sec_per_step=caller.sec_per_step
                )
            if stop and not self._is_complete:
                self._save_and_stop(actions, preemption.stop_reason or "another worker was asked to stop")

    def _time_is_nearly_over(self, actions: RunActions, loop_sec: float, reached: int) -> bool:
        """Whether the next call of the loop, the actions after it and a save may exceed the time limit."""
        total = self.plan.total_examples
        return self._wall_time.is_nearly_over(
            [action for action in actions.periodic if action.is_due(self.examples, reached, total)],
            loop_sec=loop_sec,
            save_sec=self._checkpointer.write_sec or self.state.size_bytes / _ASSUMED_BYTES_PER_SEC,
        )

    def _save_and_stop(self, actions: RunActions, reason: str) -> None:
        if actions.saved_at != self.examples:
            actions.save()
        self._checkpointer.wait()
        # No worker exits before the chief's files are complete: schedulers may stop all when one exits.
        self.sync.barrier()
        raise RunInterruptedError(
            f"{reason}: saved at {self.examples} of {self.plan.total_examples} examples; the same command "
            "continues the run"
        )

    def _continue_or_diverge(self, actions: RunActions, result: LoopResult) -> None:
        """Handles a step that was not finite, according to `Experiment.on_non_finite`."""
        policy = self._nan_policy
        self._checkpointer.wait()  # then the checkpoint of `saved_at` is on the disk
        why = policy.stop_reason(saved_at=actions.saved_at)
        if why is not None:
            raise DivergenceError(result.metrics, step=self.step, saved_at=actions.saved_at, why=why)
        done = f"skipped; {policy.skipped} such steps so far"
        if policy.policy == "restore":
            with policy.keep_position(self.state):
                actions.saved_at = self.restore()
            done = f"restored the checkpoint at {actions.saved_at} examples, continuing with the next batch"
        actions.reporter.write_line(f"step {self.step}: {not_finite(result.metrics)} not finite: {done}")
