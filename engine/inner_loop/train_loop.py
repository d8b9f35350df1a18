"""The compiled training loop: many steps in one call.

while step < steps and all finite (or scaled too high) and there is time:
  batch = next(iterator)
  one micro-batch:   strategy.run(replica step)     forward once, then every due phase in its order
  several:           accumulated step               phase by phase over the micro-batches
"""

from __future__ import annotations

import contextlib
import dataclasses
import math

import keras
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling, WarmupState
from engine.distribution.determinism import now
from engine.distribution.strategy_run import run_on_replicas
from engine.distribution.xla import compiles_with_xla, reraise_xla_errors
from engine.inner_loop.gradient_accumulation import AccumulatedStep
from engine.inner_loop.phase_update import APPLIED, NOT_FINITE
from engine.inner_loop.replica_step import PhaseSettings, ReplicaStep, StepInputs
from engine.inner_loop.train_state import TrainState
from engine.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What a call of the compiled loop did.

    Args:
      steps: steps done; fewer than asked if a loss or gradient was not finite in the last of them, or time
        was up.
      metrics: `loss/<phase>/<term>`, `grad_norm/<phase>` and `learning_rate/<phase>` of the last step, in
        float16 also the `loss_scale/<phase>` it had and the `overflows/<phase>` so far; phases that were
        not due are missing.
      data_wait_sec: seconds spent waiting for batches.
      finite: whether every loss and gradient of the last step was finite, or the loss scale alone was to
        blame. A phase with something that was not finite was not applied.
    """

    steps: int
    metrics: dict[str, float]
    data_wait_sec: float
    finite: bool


class TrainLoop:
    """Runs many steps in one call of a compiled function.

    Args:
      task: whose phases are run.
      strategy: over whose replicas.
      train_state: the variables, built under the strategy's scope.
      scaling: gives the hyper-parameters at a position and batch size.
      seed: of all randomness in the networks and losses.
      jit_compile: compile the step with XLA, once for each batch size; see `engine.distribution.xla`.
      undo_non_finite: a step in which something is not finite leaves moving statistics, spectral vectors
        and the task's state as they were; in float16 it always does.
    """

    def __init__(
        self,
        *,
        task: Task,
        strategy: tf.distribute.Strategy,
        train_state: TrainState,
        scaling: BatchScaling,
        seed: int,
        jit_compile: bool = False,
        undo_non_finite: bool = False,
    ):
        self._task = task
        self._strategy = strategy
        self._scaling = scaling
        self._replica_step = ReplicaStep(task=task, train_state=train_state, seed=seed)
        self._accumulated_step = AccumulatedStep(replica_step=self._replica_step, strategy=strategy)
        self._under_xla = compiles_with_xla(strategy, wanted=jit_compile)
        self._whole_step = tf.autograph.experimental.do_not_convert(self._replica_step.run)
        if self._under_xla:
            self._whole_step = tf.function(self._replica_step.run, autograph=False, jit_compile=True)
        self._dtype = tf.as_dtype(keras.config.floatx())
        self._to_undo: list[tf.Variable] = []
        if undo_non_finite or train_state.loss_scales:
            networks = train_state.networks.values()
            self._to_undo = [w.value for network in networks for w in network.non_trainable_weights]
            self._to_undo += train_state.task_state.values()
        phases = task.phases()
        self._period = math.lcm(*(phase.every for phase in phases))
        due = [tuple(p for p in phases if p.is_due(s)) for s in range(self._period)]
        self._patterns = list(dict.fromkeys(due))  # distinct sets of phases, each traced once
        self._pattern_of_step = [self._patterns.index(pattern) for pattern in due]
        self._metric_names: dict[int, list[str]] = {}  # by pattern, written while tracing

    @property
    def traces(self) -> int:
        """How often a step, or under accumulation a phase of it, was traced, each replica counted."""
        return self._replica_step.traces

    def run(
        self,
        iterator,
        *,
        num_steps: int,
        step: int,
        examples: int,
        plan: BatchLayout,
        rates: WarmupState | None = None,
        within_sec: float = math.inf,
    ) -> LoopResult:
        """Does up to `num_steps` steps of the plan from the given position, at least one.

        Args:
          iterator: of `engine.input_pipeline.distributed_batches.distributed_batches` for the same plan.
          rates: None where neither the batch nor a plateau has changed a learning rate.
          within_sec: no step begins after so many seconds. Several workers, which have to do the same
            steps, do not look at the clock.

        Raises:
          ConfigurationError: XLA refuses an operation of the task.
        """
        if isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            within_sec = math.inf
        rates = rates or WarmupState(1.0, 0, {})
        # What shapes are made of: known while tracing where shapes are static, else one trace for all.
        size = int if plan.static_shapes or self._under_xla else tf.constant
        with reraise_xla_errors() if self._under_xla else contextlib.nullcontext():
            done, metrics, outcome, wait_sec = self._loop(
                iterator,
                tf.constant(num_steps, tf.int64),
                StepInputs(
                    step=tf.constant(step, tf.int64),
                    examples=tf.constant(examples, tf.int64),
                    global_batch=size(plan.global_batch),
                    micro_batch=size(plan.micro_batch) if plan.is_padded else None,
                ),
                WarmupState(
                    growth_before=tf.constant(rates.growth_before, tf.float64),
                    changed_at=tf.constant(rates.changed_at, tf.int64),
                    plateau_factors={
                        name: tf.constant(rates.plateau_factors.get(name, 1.0), tf.float64)
                        for name in self._task.optimizers
                    },
                ),
                size(plan.accumulation) if plan.accumulation > 1 else None,
                tf.constant(within_sec, tf.float64),
            )
        steps = int(done)
        names = self._metric_names[self._pattern_of_step[(step + steps - 1) % self._period]]
        return LoopResult(
            steps=steps,
            metrics=dict(zip(names, (float(value) for value in metrics.numpy()), strict=True)),
            data_wait_sec=float(wait_sec),
            finite=int(outcome) < NOT_FINITE,
        )

    @tf.function(autograph=False)
    def _loop(self, iterator, num_steps, start: StepInputs, rates: WarmupState, accumulation, within_sec):
        began = now()

        def goes_on(done, metrics, outcome, wait_sec):
            with tf.control_dependencies([metrics, outcome]):  # the step before is done
                elapsed_sec = now() - began
            return (done < num_steps) & (outcome < NOT_FINITE) & ((done == 0) | (elapsed_sec < within_sec))

        def body(done, metrics, outcome, wait_sec):
            with tf.control_dependencies([metrics, outcome]):  # the step before is done
                asked = now()
            batch = iterator.get_next()
            arrived = [
                tensor
                for values in tf.nest.flatten(batch)
                for tensor in self._strategy.experimental_local_results(values)
            ]
            with tf.control_dependencies(arrived):
                wait_sec += now() - asked
            inputs = start._replace(
                step=start.step + done,
                examples=start.examples + done * tf.cast(start.global_batch, tf.int64),
            )
            metrics, outcome = self._step(batch, inputs, rates, accumulation)
            return done + 1, metrics, outcome, wait_sec

        return tf.while_loop(
            goes_on,
            body,
            (
                tf.constant(0, tf.int64),
                tf.zeros([0], self._dtype),
                tf.constant(APPLIED),
                tf.constant(0.0, tf.float64),
            ),
            shape_invariants=tuple(tf.TensorShape(shape) for shape in ([], [None], [], [])),
            parallel_iterations=1,  # a step reads what the one before has written
        )

    def _step(self, batch, inputs: StepInputs, rates: WarmupState, accumulation):
        """One step on every replica (in cross-replica context)."""
        settings = self._settings(inputs, rates)

        def run(pattern: int):
            phases = self._patterns[pattern]
            before = []
            if self._to_undo:
                before = run_on_replicas(self._strategy, lambda: [v.read_value() for v in self._to_undo])
            if accumulation is None:
                metrics, outcome = self._whole(batch, inputs, settings, phases)
            else:
                metrics, outcome = self._accumulated_step.run(batch, inputs, accumulation, settings, phases)
            self._metric_names[pattern] = list(metrics)
            if self._to_undo:
                run_on_replicas(self._strategy, self._undo, outcome, before)
            return tf.stack(list(metrics.values())), outcome

        if len(self._patterns) == 1:
            return run(0)
        pattern = tf.gather(tf.constant(self._pattern_of_step), inputs.step % self._period)
        # The choice is made outside the replicas, which may not communicate inside a condition.
        return tf.switch_case(pattern, [lambda i=i: run(i) for i in range(len(self._patterns))])

    def _undo(self, outcome, before):
        """Sets this replica's copies back unless all phases were updated (in replica context)."""

        def set_back():
            for variable, value in zip(self._to_undo, before, strict=True):
                tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
            return tf.constant(True)

        tf.cond(outcome > APPLIED, set_back, lambda: tf.constant(True))

    def _whole(self, batch, inputs, settings, phases):
        per_replica = run_on_replicas(self._strategy, self._whole_step, batch, inputs, settings, phases)
        # Everything returned is the same on every replica.
        return tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0], per_replica
        )

    def _settings(self, inputs: StepInputs, rates: WarmupState) -> dict[str, PhaseSettings]:
        growth = self._scaling.growth(
            examples=inputs.examples,
            global_batch=inputs.global_batch,
            growth_before=rates.growth_before,
            changed_at=rates.changed_at,
        )
        hyperparameters = {
            name: self._scaling.hyperparameters(
                settings,
                examples=inputs.examples,
                global_batch=inputs.global_batch,
                growth=growth,
                plateau_factor=rates.plateau_factors[name],
            )
            for name, settings in self._task.optimizers.items()
        }
        return {
            phase.name: PhaseSettings(
                hyperparameters[phase.optimizer],
                self._scaling.ema_decay(phase.ema_decay, inputs.global_batch) if phase.ema_decay else None,
            )
            for phase in self._task.phases()
        }
