"""The periodic actions of a run: compare replicas, log, update schedules, evaluate, sample, save."""

from __future__ import annotations

from collections.abc import Sequence

from engine.distribution.replica_consistency import ReplicaConsistencyCheck
from engine.evaluation.sample_grid import SampleGrid
from engine.evaluation.split_evaluator import SplitEvaluator
from engine.experiment import Experiment
from engine.inner_loop.train_state import TrainState
from engine.outer_loop.best_checkpoint import BestCheckpoint
from engine.outer_loop.loop_calls import LoopCall
from engine.outer_loop.nan_policy import NanPolicy
from engine.outer_loop.periodic_action import PeriodicAction
from engine.outer_loop.rate_warnings import ZeroRates
from engine.outer_loop.schedule_state import ScheduleState
from engine.outer_loop.stopping import EarlyStop
from engine.outer_loop.wall_time import WallTime
from engine.reporting.log_rows import Speed, training_row
from engine.reporting.reporter import Reporter
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.run_directory import RunDirectory, read_rows


class RunActions:
    """The actions of one run. Each reads the position and the weights from the run's variables.

    Args:
      experiment: the settings.
      run: the run directory.
      state: every variable of the run.
      evaluator: of the run's networks.
      schedule_state: is updated by evaluations and noise scales.
      nan_policy: counts the steps that were skipped.
      early_stop: is updated by evaluations.
      best: chooses the best checkpoint.
      replica_check: compares the replicas, also before each checkpoint; None does not compare them.
      checkpointer: writes checkpoints.
      zero_rates: is reported when training reaches it.
      reporter: writes the logs.
      saved_at: examples at the last checkpoint; None if there is none.
      device_names: devices whose memory rows of train.jsonl have, if they tell it.

    Attributes:
      periodic: the actions, in the order in which they run at one position.
      reporter: as given.
      saved_at: examples at the last checkpoint; None if there is none.
      last_call: the last call of the compiled loop; None before the first.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: RunDirectory,
        *,
        state: TrainState,
        evaluator: SplitEvaluator,
        schedule_state: ScheduleState,
        nan_policy: NanPolicy,
        early_stop: EarlyStop,
        best: BestCheckpoint,
        replica_check: ReplicaConsistencyCheck | None,
        checkpointer: AsyncCheckpointer,
        zero_rates: ZeroRates,
        reporter: Reporter,
        saved_at: int | None,
        device_names: Sequence[str],
    ):
        self._experiment = experiment
        self._run = run
        self._state = state
        self._evaluator = evaluator
        self._schedule_state = schedule_state
        self._nan_policy = nan_policy
        self._early_stop = early_stop
        self._best = best
        self._best_saved_at: int | None = None
        self._replica_check = replica_check
        self._checked_at: int | None = None
        self._checkpointer = checkpointer
        self._zero_rates = zero_rates
        self.reporter = reporter
        self.saved_at = saved_at
        self.last_call: LoopCall | None = None
        self._speed = Speed(device_names=device_names)
        self._notes_logged = 0
        self._logged_at: int | None = None
        self._sample_grid: SampleGrid | None = None
        self.periodic = self._periodic_actions()

    def _periodic_actions(self) -> list[PeriodicAction]:
        """The actions in order. Saving is last: a checkpoint includes all that happens at its position."""
        every, update_every = self._experiment.examples, self._schedule_state.decide_every_examples
        actions = []
        if self._replica_check is not None:
            actions.append(PeriodicAction(every("check_replicas_every"), self.check_replicas))
        actions.append(PeriodicAction(every("log_every"), self.log))
        if update_every:
            actions.append(PeriodicAction(update_every, self.update_batch_schedule))
        actions.append(PeriodicAction(every("evaluate_every"), self.evaluate))
        actions.append(PeriodicAction(every("sample_every"), self.sample))
        if self._experiment.histograms_every is not None:
            actions.append(PeriodicAction(every("histograms_every"), self.log_weights))
        actions.append(PeriodicAction(every("save_every"), self.save))
        return actions

    def run_due(self, call: LoopCall, *, total: int, wall_time: WallTime) -> None:
        """Runs the actions that are due after a call of the loop.

        Args:
          call: of the loop.
          total: examples of the whole run; at its end, also an early one, every action is due.
          wall_time: measures how long each action takes.
        """
        self.last_call = call
        examples = self._examples
        self._speed.add(
            examples=examples - call.before,
            steps=call.result.steps,
            sec=call.sec,
            wait_sec=call.result.data_wait_sec,
        )
        self.reporter.update_progress(examples)
        for line in self._zero_rates.lines_between(call.before, examples):
            self.reporter.write_line(line)
        for action in self.periodic:
            # An evaluation may end the run. It comes before samples and saving, and logs itself.
            if action.is_due(call.before, examples, total) or self._early_stop.is_over:
                with wall_time.measure(action):
                    action.run()

    @property
    def is_evaluated(self) -> bool:
        """Whether eval.jsonl has a row of this position, as it has when a run has ended here."""
        split = self._experiment.data.evaluation_split
        rows = read_rows(self._run.eval_log)
        return any((row["examples"], row["split"]) == (self._examples, split) for row in rows)

    def check_replicas(self) -> None:
        """Compares the replicas, unless that is switched off or already done at this position.

        Raises:
          ReplicaMismatchError: they differ.
        """
        if self._replica_check is not None and self._checked_at != self._examples:
            self._replica_check.run(examples=self._examples, saved_at=self.saved_at)
            self._checked_at = self._examples

    def log(self) -> None:
        """Logs a row about the last call of the loop, and new notes about the data."""
        assert self.last_call is not None, "log needs a call of the loop before it"
        notes = self._experiment.data.notes()
        for note in notes[self._notes_logged :]:
            self.reporter.write_line(note)
        self._notes_logged = len(notes)
        row = training_row(
            self.last_call.batch,
            self.last_call.result.metrics,
            step=self._step,
            examples=self._examples,
            examples_per_epoch=self._experiment.data.train_examples,
            noise_scales=self._state.noise_scales,
            skipped_steps=self._nan_policy.skipped if self._nan_policy.policy == "skip" else None,
        )
        self.reporter.log_row(row | self._speed.read())
        self._logged_at = self._examples

    def update_batch_schedule(self) -> None:
        """Updates the batch schedule with the measured noise scales."""
        self._schedule_state.after_noise_scale(self._state.noise_scales)

    def evaluate(self) -> None:
        """Evaluates the networks, updates all that follows a metric, and saves the best networks."""
        split = self._experiment.data.evaluation_split
        evaluation = self._evaluator.evaluate(split)
        self.reporter.log_evaluation(evaluation, split=split, step=self._step, examples=self._examples)
        lines = self._schedule_state.after_evaluation(evaluation.metrics)
        waiting = self._early_stop.after_evaluation(evaluation.metrics, examples=self._examples)
        lines += [waiting] if waiting else []
        if self._best.improves(evaluation.metrics):
            self.check_replicas()
            lines.append(self._best.accept(evaluation.metrics))
            self._checkpointer.save(self._state, self._run.best, keep=1)
            self._best_saved_at = self._examples
        stopped = self._early_stop.reason(self._examples)
        for line in lines + ([stopped] if stopped else []):
            self.reporter.write_line(line)
        if self._early_stop.is_over and self._logged_at != self._examples:
            self.log()

    def sample(self) -> None:
        """Writes a grid of pictures."""
        if self._sample_grid is None:
            self._sample_grid = SampleGrid(
                task=self._experiment.task,
                data=self._experiment.data,
                networks=self._state.evaluation_networks,
            )
        self.reporter.log_samples(self._sample_grid.render(), examples=self._examples)

    def log_weights(self) -> None:
        """Logs histograms of all weights."""
        networks = {f"averaged_{name}": network for name, network in self._state.averaged.items()}
        self.reporter.log_weights({**self._state.networks, **networks}, examples=self._examples)

    def save(self) -> None:
        """Starts to write a checkpoint."""
        self.check_replicas()
        keep = self._experiment.keep_checkpoints
        if self._best_saved_at == self._examples:  # nothing has changed since
            self._checkpointer.save_again(
                self._run.best, self._run.checkpoints, examples=self._examples, keep=keep
            )
        else:
            self._checkpointer.save(self._state, self._run.checkpoints, keep=keep)
        self.saved_at = self._examples

    @property
    def _step(self) -> int:
        return int(self._state.step.numpy())

    @property
    def _examples(self) -> int:
        return int(self._state.examples.numpy())
