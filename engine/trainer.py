"""The outer loop: what runs between two looks of Python at the run, and what happens then."""

from __future__ import annotations

import dataclasses
import math
import time

import keras
import tensorflow as tf

from engine import checkpoints
from engine.actions import Action, steps_until_next
from engine.batch_plan import BatchPlan
from engine.cluster import is_chief, make_strategy, set_precision, smallest_of_workers
from engine.decisions import Decisions, initial_decisions
from engine.endings import Diverged, Interrupted, OutOfMemory, not_finite
from engine.evaluation import HIGHER_IS_BETTER, Evaluator
from engine.experiment import Experiment
from engine.feeding import distributed_batches, explained, needs_static_shapes
from engine.interruption import Interruption
from engine.non_finite import NonFinitePolicy, initial_counts
from engine.reporting import Reporter, Speed, opening_line, training_row
from engine.run_directory import RunDirectory
from engine.run_plan import plan_run
from engine.samples import Sampler
from engine.saving import BackgroundSaver
from engine.state import build_state
from engine.step import LoopResult, TrainLoop
from engine.wall_time import WallTime
from engine.workers import Agreement

LOOP_SEC = 5.0
"""No step of a call of the compiled loop begins later than this, so that signals are answered."""

_ASSUMED_BYTES_PER_SEC = 50e6  # of a save, before the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a call of `Trainer.run` ended.

    Args:
      step, examples: where the run stands.
      train_sec: seconds this call took.
    """

    step: int
    examples: int
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
        set_precision(experiment.precision)
        self.strategy = make_strategy(experiment.strategy, cpu_replicas=experiment.cpu_replicas)
        data = experiment.data
        self.plan = plan_run(
            experiment,
            replicas=self.strategy.num_replicas_in_sync,
            largest_micro_batch=smallest_of_workers(self.strategy, experiment.largest_micro_batch),
            static_shapes=needs_static_shapes(self.strategy),
        )
        optimizers = experiment.task.optimizers
        # A run that goes on has its own weights, and the files may be gone.
        new = not checkpoints.positions(run.checkpoints)
        self.state = build_state(
            experiment.task,
            data.example_spec,
            strategy=self.strategy,
            seed=experiment.seed,
            initial_weights=experiment.initial_weights if new else None,
            decisions=initial_decisions(self.plan.schedule, optimizers) | initial_counts(),
            noise_settings=self.plan.noise_settings,
        )
        self._decisions = Decisions(
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
            undo_non_finite=experiment.on_non_finite == "skip",
        )
        self._non_finite = NonFinitePolicy(experiment.on_non_finite, self.state.decisions)
        self.evaluator = Evaluator(
            task=experiment.task,
            strategy=self.strategy,
            data=data,
            networks=self.state.evaluation_networks,
        )
        self.is_chief = is_chief(self.strategy)
        self._saver = BackgroundSaver(is_chief=self.is_chief)
        self._wall_time = WallTime(experiment.max_wall_time)
        self._agreement = Agreement(self.strategy)
        self._speed = Speed()
        self._notes_told = 0
        self._last: LoopResult | None = None  # of the step just done, as is its batch
        self._batch: BatchPlan | None = None
        self._sampler: Sampler | None = None
        self._saved_at: int | None = None
        self._reporter: Reporter | None = None
        # Everything that belongs to a position happens before its checkpoint is written.
        decide_every = self.plan.schedule.decide_every_examples
        self._actions = [
            Action(experiment.examples("log_every"), self._log),
            *([Action(decide_every, self._decide)] if decide_every else []),
            Action(experiment.examples("evaluate_every"), self._evaluate),
            Action(experiment.examples("sample_every"), self._sample),
            Action(experiment.examples("save_every"), self._save),
        ]

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
            checkpoints.tidy(directory)
            checkpoints.tidy(self.run_directory.best)
        smallest_of_workers(self.strategy, 0)  # the others look when the chief is done
        newest = checkpoints.newest_undamaged(directory)
        position = smallest_of_workers(self.strategy, -1 if newest is None else newest)
        if position >= 0:
            checkpoints.read(self.state, directory, position)
        self._saved_at = position if position >= 0 else None
        return self._saved_at

    def run(self) -> Summary:
        """Trains from where the run stands to its end, and marks it DONE.

        Raises:
          Interrupted: SIGINT or SIGTERM came, to this worker or to another; the state is saved.
          Diverged: a loss or gradient was not finite; the last checkpoint is from before it.
          ConfigurationError: something could not be written; what was saved before is all there.
          OutOfMemory: a step did not fit; smaller micro-batches may.
        """
        started = time.monotonic()
        if self.is_chief:
            self.run_directory.cut_logs(self.examples)
            self.run_directory.clear_done()
        self._reporter = Reporter(
            self.run_directory,
            total_examples=self.plan.total_examples,
            done_examples=self.examples,
            is_chief=self.is_chief,
        )
        try:
            self._reporter.config_text(self._config_text)
            opening = {"examples": self.examples, "total": self.plan.total_examples}
            self._reporter.line(opening_line(self.experiment, self.strategy, self.state.networks, **opening))
            with Interruption() as interruption:
                self._train(interruption)
                self._saver.wait()
            smallest_of_workers(self.strategy, 0)  # none ends before the chief has written everything
        finally:
            self._saver.close()
            self._reporter.close()
        summary = Summary(step=self.step, examples=self.examples, train_sec=time.monotonic() - started)
        if self.is_chief:
            self.run_directory.mark_done({"step": summary.step, "examples": summary.examples})
        return summary

    def _train(self, interruption: Interruption) -> None:
        step, examples, total = self.step, self.examples, self.plan.total_examples
        iterator, sec_per_step, self._batch = None, math.inf, None
        if examples < total:
            self._wall_time.check_beginning()
        while examples < total:
            batch = self._decisions.global_batch(examples)
            if self._batch is not self.plan.batches[batch]:
                self._batch = self.plan.batches[batch]
                iterator = distributed_batches(
                    self.strategy, self.experiment.data, position_examples=examples, plan=self._batch
                )
                sec_per_step = math.inf
            num_steps = steps_until_next(
                self._actions,
                examples=examples,
                total=total,
                boundary=self.plan.schedule.next_start(examples),
                global_batch=batch,
            )
            # The first call for a batch, which may compile, does one step and tells how long one is.
            affordable = 1 if math.isinf(sec_per_step) else max(1, int(LOOP_SEC / sec_per_step))
            num_steps = min(num_steps, affordable, self.experiment.steps_per_loop)
            began = time.monotonic()
            try:
                with explained(self.experiment.data, "train", examples):
                    result = self.loop.run(
                        iterator,
                        num_steps=num_steps,
                        step=step,
                        examples=examples,
                        plan=self._batch,
                        rates=self._decisions.rates(),
                        within_sec=LOOP_SEC,
                    )
            except tf.errors.ResourceExhaustedError as error:
                self._saver.wait()
                raise OutOfMemory(examples=examples, micro_batch=self._batch.micro_batch) from error
            sec = time.monotonic() - began
            sec_per_step = sec / result.steps
            before, examples = examples, examples + result.steps * batch
            step += result.steps
            self.state.step.assign(step)
            self.state.examples.assign(examples)
            self._last = result
            self._non_finite.after_loop(finite=result.finite, steps=result.steps)
            if not result.finite:
                self._go_on_or_diverge(result)
            self._speed.add(
                examples=examples - before,
                steps=result.steps,
                sec=sec,
                wait_sec=result.data_wait_sec,
            )
            self._reporter.progress(examples)
            for action in self._actions:
                if action.is_due(before, examples, total):
                    with self._wall_time.timed(action):
                        action.fire()
            self._saver.check()
            loop_sec = max(sec_per_step, min(LOOP_SEC, sec_per_step * self.experiment.steps_per_loop))
            reached = examples + batch * max(1, int(loop_sec / sec_per_step))
            if self._wall_time.is_nearly_over(
                [action for action in self._actions if action.is_due(examples, reached, total)],
                loop_sec=loop_sec,
                save_sec=self._saver.write_sec or self.state.size_bytes / _ASSUMED_BYTES_PER_SEC,
            ):
                interruption.request(f"max_wall_time = {self._wall_time.limit!r} is nearly over")
            # Workers that did different numbers of steps, or saved at different ones, would wait for ever.
            stop, sec_per_step = self._agreement.reach(
                stop=interruption.requested is not None, sec_per_step=sec_per_step
            )
            if stop and examples < total:
                self._stop(interruption.requested or "another worker was asked to stop")

    def _stop(self, reason: str) -> None:
        if self._saved_at != self.examples:
            self._save()
        self._saver.wait()
        # None ends before the chief's files are complete: whoever sees a worker end may end the others.
        self._agreement.reach(stop=True, sec_per_step=0.0)
        raise Interrupted(
            f"{reason}: saved at {self.examples} of {self.plan.total_examples} examples; the same command "
            "continues the run"
        )

    def _go_on_or_diverge(self, result: LoopResult) -> None:
        """Does about a step that was not finite what the settings say."""
        policy = self._non_finite
        self._saver.wait()  # what it says of the last checkpoint is then true
        why = policy.why_stop(saved_at=self._saved_at)
        if why is not None:
            raise Diverged(result.metrics, step=self.step, saved_at=self._saved_at, why=why)
        done = f"left out; {policy.skipped} such steps so far"
        if policy.policy == "restore":
            with policy.going_back(self.state):
                done = f"back to the weights of {self.restore()} examples, and on with the next batch"
        self._reporter.line(f"step {self.step}: {not_finite(result.metrics)} not finite: {done}")

    def _log(self) -> None:
        for note in self.experiment.data.notes()[self._notes_told :]:
            self._reporter.line(note)
            self._notes_told += 1
        self._reporter.log_row(
            training_row(
                self._batch,
                self._last.metrics,
                step=self.step,
                examples=self.examples,
                examples_per_epoch=self.experiment.data.train_examples,
                noise_scales=self.state.noise_scales,
                skipped_steps=self._non_finite.skipped if self._non_finite.policy == "skip" else None,
            )
            | self._speed.read()
        )

    def _decide(self) -> None:
        self._decisions.after_noise_scale(self.state.noise_scales)

    def _evaluate(self) -> None:
        split = self.experiment.data.evaluation_split
        evaluation = self.evaluator.evaluate(split)
        self._reporter.evaluation(evaluation, split=split, step=self.step, examples=self.examples)
        self._decisions.after_evaluation(evaluation.model)
        name = self.experiment.best_metric
        if name not in evaluation.model:  # nothing to compare translations with
            return
        value, best = evaluation.model[name], float(self.state.best.numpy())
        better = value > best if HIGHER_IS_BETTER[name] else value < best
        if better or math.isnan(best):
            self.state.best.assign(value)
            self._saver.save(self.state, self.run_directory.best, keep=1)

    def _sample(self) -> None:
        if self._sampler is None:
            self._sampler = Sampler(
                task=self.experiment.task,
                data=self.experiment.data,
                networks=self.state.evaluation_networks,
            )
        self._reporter.samples(self._sampler.grid(), examples=self.examples)

    def _save(self) -> None:
        self._saver.save(self.state, self.run_directory.checkpoints, keep=self.experiment.keep_checkpoints)
        self._saved_at = self.examples
