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
from engine.endings import Diverged, Interrupted, OutOfMemory
from engine.evaluation import HIGHER_IS_BETTER, Evaluator
from engine.experiment import Experiment
from engine.feeding import distributed_batches, explained, needs_static_shapes
from engine.interruption import Interruption
from engine.reporting import Reporter, Speed
from engine.run_directory import RunDirectory
from engine.run_plan import plan_run
from engine.samples import Sampler
from engine.state import build_state, trainable_parameters
from engine.step import LoopResult, TrainLoop
from engine.workers import Agreement

LOOP_SEC = 5.0
"""A call of the compiled loop is kept shorter than this, so that signals are answered."""


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
            decisions=initial_decisions(self.plan.schedule, optimizers),
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
        )
        self.evaluator = Evaluator(
            task=experiment.task,
            strategy=self.strategy,
            data=data,
            networks=self.state.evaluation_networks,
        )
        self.is_chief = is_chief(self.strategy)
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
        """Goes back to the newest checkpoint of the run; None if there is none yet."""
        self._saved_at = checkpoints.restore_latest(self.state, self.run_directory.checkpoints)
        return self._saved_at

    def run(self) -> Summary:
        """Trains from where the run stands to its end, and marks it DONE.

        Raises:
          Interrupted: SIGINT or SIGTERM came, to this worker or to another; the state is saved.
          Diverged: a loss or gradient was not finite; the last checkpoint is from before it.
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
            self._announce()
            with Interruption() as interruption:
                self._train(interruption)
        finally:
            self._reporter.close()
        summary = Summary(step=self.step, examples=self.examples, train_sec=time.monotonic() - started)
        if self.is_chief:
            self.run_directory.mark_done({"step": summary.step, "examples": summary.examples})
        return summary

    def _train(self, interruption: Interruption) -> None:
        step, examples, total = self.step, self.examples, self.plan.total_examples
        iterator, sec_per_step, self._batch = None, math.inf, None
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
                    )
            except tf.errors.ResourceExhaustedError as error:
                raise OutOfMemory(examples=examples, micro_batch=self._batch.micro_batch) from error
            sec = time.monotonic() - began
            if not result.finite:
                raise Diverged(result.metrics, step=step + result.steps, saved_at=self._saved_at)
            sec_per_step = sec / result.steps
            before, examples = examples, examples + result.steps * batch
            step += result.steps
            self.state.step.assign(step)
            self.state.examples.assign(examples)
            self._last = result
            self._speed.add(
                examples=examples - before,
                steps=result.steps,
                sec=sec,
                wait_sec=result.data_wait_sec,
            )
            self._reporter.progress(examples)
            for action in self._actions:
                if action.is_due(before, examples, total):
                    action.fire()
            # Workers that did different numbers of steps, or saved at different ones, would wait for ever.
            stop, sec_per_step = self._agreement.reach(
                stop=interruption.requested is not None, sec_per_step=sec_per_step
            )
            if stop and examples < total:
                self._stop(interruption.requested or "another worker was asked to stop")

    def _stop(self, reason: str) -> None:
        if self._saved_at != self.examples:
            self._save()
        # None ends before the chief's files are complete: whoever sees a worker end may end the others.
        self._agreement.reach(stop=True, sec_per_step=0.0)
        raise Interrupted(
            f"{reason}: saved at {self.examples} of {self.plan.total_examples} examples; the same command "
            "continues the run"
        )

    def _announce(self) -> None:
        experiment, strategy = self.experiment, self.strategy
        parameters = ", ".join(
            f"{name} {trainable_parameters(network):,}" for name, network in self.state.networks.items()
        )
        if self.examples >= self.plan.total_examples:
            self._reporter.line(f"complete already: {self.examples} examples; raise TOTAL_EXAMPLES to go on")
            return
        self._reporter.line(
            f"{f'resuming at {self.examples} of' if self.examples else 'training'} "
            f"{self.plan.total_examples} examples ({experiment.data.train_examples} an epoch) on "
            f"{strategy.num_replicas_in_sync} x {strategy.extended.worker_devices[0].split(':')[-2]}, "
            f"{experiment.precision}; parameters: {parameters}"
        )

    def _log(self) -> None:
        batch = self._batch
        for note in self.experiment.data.notes()[self._notes_told :]:
            self._reporter.line(note)
            self._notes_told += 1
        self._reporter.log_row(
            {
                "step": self.step,
                "examples": self.examples,
                "epoch": self.examples / self.experiment.data.train_examples,
                "global_batch": batch.global_batch,
                "per_replica_batch": batch.per_replica_batch,
                "accumulation": batch.accumulation,
                "replicas": batch.replicas,
                **self._last.metrics,
                **{
                    f"noise_scale/{phase}": noise_scale.value().noise_scale
                    for phase, noise_scale in self.state.noise_scales.items()
                },
                **self._speed.read(),
            }
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
            checkpoints.save(self.state, self.run_directory.best, keep=1, is_chief=self.is_chief)

    def _sample(self) -> None:
        if self._sampler is None:
            self._sampler = Sampler(
                task=self.experiment.task,
                data=self.experiment.data,
                networks=self.state.evaluation_networks,
            )
        self._reporter.samples(self._sampler.grid(), examples=self.examples)

    def _save(self) -> None:
        checkpoints.save(
            self.state,
            self.run_directory.checkpoints,
            keep=self.experiment.keep_checkpoints,
            is_chief=self.is_chief,
        )
        self._saved_at = self.examples
