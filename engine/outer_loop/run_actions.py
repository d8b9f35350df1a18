"""What happens at positions of a run: rows are logged, batches decided on, splits evaluated, states saved."""

from __future__ import annotations

import dataclasses
import math

from data.imaging.metrics import HIGHER_IS_BETTER
from engine.batching.batch_layout import BatchLayout
from engine.distribution.replica_consistency import ReplicaConsistencyCheck
from engine.evaluation.evaluator import Evaluator
from engine.evaluation.sample_grid import SampleGrid
from engine.experiment import Experiment
from engine.inner_loop.train_loop import LoopResult
from engine.inner_loop.train_state import TrainState
from engine.outer_loop.nan_policy import NanPolicy
from engine.outer_loop.periodic_action import PeriodicAction
from engine.outer_loop.schedule_state import ScheduleState
from engine.outer_loop.wall_time import WallTime
from engine.reporting.log_rows import Speed, training_row
from engine.reporting.reporter import Reporter
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopCall:
    """A call of the compiled loop.

    Args:
      batch: layout of its batches.
      result: what it did.
      before: examples of the run before it.
      sec: seconds it took.
    """

    batch: BatchLayout
    result: LoopResult
    before: int
    sec: float


class RunActions:
    """The events of one run; each reads position and weights from the run's variables.

    Args:
      experiment: the settings.
      run: where everything is written.
      state: every variable of the run.
      evaluator: of the run's networks.
      decisions: what evaluations and noise scales lead to.
      non_finite: has counted the steps that were skipped.
      replica_check: compares the replicas, also before anything is saved; None: nobody compares them.
      saver: writes checkpoints.
      reporter: tells all that happens.
      saved_at: examples at the last checkpoint; None if there is none.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: RunDirectory,
        *,
        state: TrainState,
        evaluator: Evaluator,
        decisions: ScheduleState,
        non_finite: NanPolicy,
        replica_check: ReplicaConsistencyCheck | None,
        saver: AsyncCheckpointer,
        reporter: Reporter,
        saved_at: int | None,
    ):
        self._experiment = experiment
        self._run = run
        self._state = state
        self._evaluator = evaluator
        self._decisions = decisions
        self._non_finite = non_finite
        self._replica_check = replica_check
        self._checked_at: int | None = None
        self._saver = saver
        self.reporter = reporter
        self.saved_at = saved_at
        self.last: LoopCall | None = None
        self._speed = Speed()
        self._notes_told = 0
        self._sampler: SampleGrid | None = None
        # Everything that belongs to a position happens before its checkpoint is written.
        decide_every = decisions.decide_every_examples
        self.actions = [
            *(
                [PeriodicAction(experiment.examples("check_replicas_every"), self.check)]
                if replica_check
                else []
            ),
            PeriodicAction(experiment.examples("log_every"), self.log),
            *([PeriodicAction(decide_every, self.decide)] if decide_every else []),
            PeriodicAction(experiment.examples("evaluate_every"), self.evaluate),
            PeriodicAction(experiment.examples("sample_every"), self.sample),
            PeriodicAction(experiment.examples("save_every"), self.save),
        ]

    def after(self, call: LoopCall, *, total: int, wall_time: WallTime) -> None:
        """Fires what is due after a call of the loop, and notes how long each took.

        Args:
          total: examples of the whole run, at whose end everything is due.
        """
        self.last = call
        examples = self._examples
        self._speed.add(
            examples=examples - call.before,
            steps=call.result.steps,
            sec=call.sec,
            wait_sec=call.result.data_wait_sec,
        )
        self.reporter.progress(examples)
        for action in self.actions:
            if action.is_due(call.before, examples, total):
                with wall_time.timed(action):
                    action.fire()

    def check(self) -> None:
        """Ends the run if the replicas differ."""
        if self._replica_check is not None and self._checked_at != self._examples:
            self._replica_check.run(examples=self._examples, saved_at=self.saved_at)
            self._checked_at = self._examples

    def log(self) -> None:
        notes = self._experiment.data.notes()
        for note in notes[self._notes_told :]:
            self.reporter.line(note)
        self._notes_told = len(notes)
        self.reporter.log_row(
            training_row(
                self.last.batch,
                self.last.result.metrics,
                step=self._step,
                examples=self._examples,
                examples_per_epoch=self._experiment.data.train_examples,
                noise_scales=self._state.noise_scales,
                skipped_steps=self._non_finite.skipped if self._non_finite.policy == "skip" else None,
            )
            | self._speed.read()
        )

    def decide(self) -> None:
        self._decisions.after_noise_scale(self._state.noise_scales)

    def evaluate(self) -> None:
        split = self._experiment.data.evaluation_split
        evaluation = self._evaluator.evaluate(split)
        self.reporter.evaluation(evaluation, split=split, step=self._step, examples=self._examples)
        self._decisions.after_evaluation(evaluation.model)
        name = self._experiment.best_metric
        if name not in evaluation.model:  # nothing to compare translations with
            return
        value, best = evaluation.model[name], float(self._state.best.numpy())
        better = value > best if HIGHER_IS_BETTER[name] else value < best
        if better or math.isnan(best):
            self.check()
            self._state.best.assign(value)
            self._saver.save(self._state, self._run.best, keep=1)

    def sample(self) -> None:
        if self._sampler is None:
            self._sampler = SampleGrid(
                task=self._experiment.task,
                data=self._experiment.data,
                networks=self._state.evaluation_networks,
            )
        self.reporter.samples(self._sampler.render(), examples=self._examples)

    def save(self) -> None:
        self.check()
        self._saver.save(self._state, self._run.checkpoints, keep=self._experiment.keep_checkpoints)
        self.saved_at = self._examples

    @property
    def _step(self) -> int:
        return int(self._state.step.numpy())

    @property
    def _examples(self) -> int:
        return int(self._state.examples.numpy())
