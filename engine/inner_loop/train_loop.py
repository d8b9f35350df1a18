"""The compiled training loop: many steps in one call.

while step < steps, everything is finite (or only the loss scale was too high), and there is time:
  batch = next(iterator)
  one micro-batch:   strategy.run(replica step)     one forward pass, then the due phases in order
  several:           accumulated step               phase by phase over the micro-batches
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling, WarmupState
from engine.distribution.determinism import now
from engine.distribution.devices import Devices
from engine.distribution.strategy_run import run_on_replicas
from engine.distribution.xla import compiles_with_xla, reraise_xla_errors
from engine.inner_loop.due_phases import DuePhases
from engine.inner_loop.gradient_accumulation import AccumulatedStep
from engine.inner_loop.loop_inputs import LoopInputs, traced_inputs
from engine.inner_loop.phase_update import APPLIED, NOT_FINITE, PhaseSettings, phase_settings
from engine.inner_loop.replica_step import ReplicaStep, StepInputs
from engine.inner_loop.step_undo import StepUndo, moved_variables
from engine.inner_loop.train_state import TrainState
from engine.task import Phase, Task

Batch = Mapping[str, Any]
"""Values that the data set yields, by name: the rows of each replica (`tf.distribute.DistributedValues`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopResult:
    """The result of a call of the compiled loop.

    Attributes:
      steps: steps done; fewer than requested if a loss or gradient of the last one was not finite, or time
        was up.
      metrics: of the last step, `loss/<phase>/<term>`, `grad_norm/<phase>` and `learning_rate/<phase>`; in
        float16 also the `loss_scale/<phase>` of the step and the `overflows/<phase>` so far. Phases that were
        not due are missing.
      data_wait_sec: seconds spent waiting for batches.
      finite: whether every loss and gradient of the last step was finite, or was not only because the loss
        scale was too high. A phase in which something was not finite was not applied.
    """

    steps: int
    metrics: dict[str, float]
    data_wait_sec: float
    finite: bool


class TrainLoop:
    """Runs many steps in one call of a compiled function.

    Args:
      task: its phases are run.
      devices: of the run.
      train_state: the variables, built under the strategy's scope.
      scaling: gives the hyper-parameters at a position and batch size.
      seed: of all randomness in the networks and losses.
      jit_compile: compile the step with XLA, once for each batch size; see `engine.distribution.xla`.
      undo_non_finite: whether moving statistics, spectral vectors and the task's state are restored after a
        step in which something was not finite. In float16 they always are.
      label_roles: as in `engine.task.Step`.
      recompute: as in `engine.inner_loop.replica_step.ReplicaStep`.
      adversarial_start: examples of the run before the adversarial phases join.
    """

    def __init__(
        self,
        *,
        task: Task,
        devices: Devices,
        train_state: TrainState,
        scaling: BatchScaling,
        seed: int,
        jit_compile: bool = False,
        undo_non_finite: bool = False,
        label_roles: Iterable[str] = (),
        recompute: bool = False,
        adversarial_start: int = 0,
    ):
        self._task = task
        self._devices = devices
        self._strategy = devices.strategy
        self._scaling = scaling
        self._under_xla = compiles_with_xla(devices, wanted=jit_compile)
        self._replica_step = ReplicaStep(
            task=task,
            train_state=train_state,
            seed=seed,
            label_roles=label_roles,
            recompute=recompute,
            compile_parts=self._under_xla and devices.replicas > 1,
        )
        self._accumulated_step = AccumulatedStep(replica_step=self._replica_step, strategy=devices.strategy)
        self._whole_step = tf.autograph.experimental.do_not_convert(self._replica_step.run)
        if self._under_xla and devices.replicas == 1:
            self._whole_step = tf.function(self._replica_step.run, autograph=False, jit_compile=True)
        self._dtype = tf.as_dtype(keras.config.floatx())
        moved = moved_variables(train_state) if undo_non_finite or train_state.loss_scales else []
        self._undo = StepUndo(moved) if moved else None
        self._due = DuePhases(task.phases(), adversarial_start=adversarial_start)
        self._metric_names: dict[int, list[str]] = {}  # by pattern, written while tracing
        with tf.device("CPU:0"):  # so that another thread can read them while a GPU computes
            self._asked, self._arrived = (tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(2))

    @property
    def traces(self) -> int:
        """How often a step (with accumulation: a phase) was traced. Each replica counts."""
        return self._replica_step.traces

    def batches(self) -> tuple[int, int]:
        """Batches that the loop has asked the input for, and those that arrived, since it was built.

        Another thread may read them while the loop runs: while they differ, the loop waits for input.
        """
        return int(self._asked.numpy()), int(self._arrived.numpy())

    def run(
        self,
        iterator: tf.distribute.DistributedIterator,
        *,
        num_steps: int,
        step: int,
        examples: int,
        layout: BatchLayout,
        warmup: WarmupState | None = None,
        plateau_factors: Mapping[str, float] | None = None,
        within_sec: float = math.inf,
    ) -> LoopResult:
        """Runs up to `num_steps` steps from the given position, at least one.

        Args:
          iterator: of `engine.input_pipeline.distributed_batches.distributed_batches` for the same layout.
          num_steps: the most steps to run.
          step: steps done before.
          examples: examples drawn before.
          layout: of the batches.
          warmup: None before the first change of the batch.
          plateau_factors: on the learning rate, by optimizer; a missing one is 1.
          within_sec: no step starts after so many seconds. Ignored with several workers, which have to run
            the same steps.

        Raises:
          ConfigurationError: XLA refuses an operation of the task.
        """
        if self._devices.is_multi_worker:
            within_sec = math.inf
        factors = plateau_factors or {}
        inputs = traced_inputs(
            step=step,
            examples=examples,
            layout=layout,
            warmup=warmup or WarmupState(),
            plateau_factors={name: factors.get(name, 1.0) for name in self._task.optimizers},
            static_sizes=layout.static_shapes or self._under_xla,
        )
        with reraise_xla_errors() if self._under_xla else contextlib.nullcontext():
            done, metrics, outcome, wait_sec = self._loop(
                iterator, tf.constant(num_steps, tf.int64), inputs, tf.constant(within_sec, tf.float64)
            )
        steps = int(done)
        earlier = steps - 1
        pattern = self._due.pattern_at(step=step + earlier, examples=examples + earlier * layout.global_batch)
        return LoopResult(
            steps=steps,
            metrics=dict(
                zip(self._metric_names[pattern], (float(value) for value in metrics.numpy()), strict=True)
            ),
            data_wait_sec=float(wait_sec),
            finite=int(outcome) < NOT_FINITE,
        )

    def step_graph(
        self, example: Mapping[str, tf.TensorSpec], *, accumulates: bool, batch_size: int | None = None
    ) -> tf.Graph:
        """Traces one step in which every phase is due, and runs nothing; for one device, of any kind.

        Args:
          example: shapes of the features of one example.
          accumulates: whether the step computes on several micro-batches; the batch is one micro-batch then.
          batch_size: of the batch; None leaves it unknown.
        """
        layout = BatchLayout(
            global_batch=2 if accumulates else 1, replicas=1, largest_micro_batch=1 if accumulates else None
        )
        inputs = traced_inputs(
            step=0,
            examples=0,
            layout=layout,
            warmup=WarmupState(),
            plateau_factors=dict.fromkeys(self._task.optimizers, 1.0),
            static_sizes=False,
        )
        all_due = self._due.all_due
        pattern = self._due.pattern_at(step=all_due, examples=self._due.adversarial_start)

        @tf.function(autograph=False)
        def step(batch: Batch, inputs: LoopInputs) -> tuple[tf.Tensor, tf.Tensor]:
            settings = self._settings(inputs.start, inputs)
            start = inputs.start._replace(step=tf.constant(all_due, tf.int64))
            return self._run_pattern(pattern, batch, start, settings, inputs.accumulation)

        batch = {name: tf.TensorSpec([batch_size, *spec.shape], spec.dtype) for name, spec in example.items()}
        return step.get_concrete_function(batch, inputs).graph

    @tf.function(autograph=False)
    def _loop(
        self,
        iterator: tf.distribute.DistributedIterator,
        num_steps: tf.Tensor,
        inputs: LoopInputs,
        within_sec: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """(steps done, metrics of the last step, its outcome, seconds spent waiting for batches)."""
        began = now()

        def continues(
            done: tf.Tensor, metrics: tf.Tensor, outcome: tf.Tensor, wait_sec: tf.Tensor
        ) -> tf.Tensor:
            with tf.control_dependencies([metrics, outcome]):  # after the previous step
                elapsed_sec = now() - began
            return (done < num_steps) & (outcome < NOT_FINITE) & ((done == 0) | (elapsed_sec < within_sec))

        def body(
            done: tf.Tensor, metrics: tf.Tensor, outcome: tf.Tensor, wait_sec: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            batch, wait_sec = self._next_batch(iterator, wait_sec, after=[metrics, outcome])
            metrics, outcome = self._one_step(batch, done, inputs)
            return done + 1, metrics, outcome, wait_sec

        return tf.while_loop(
            continues,
            body,
            (
                tf.constant(0, tf.int64),
                tf.zeros([0], self._dtype),
                tf.constant(APPLIED),
                tf.constant(0.0, tf.float64),
            ),
            # The number of metrics depends on which phases are due.
            shape_invariants=tuple(tf.TensorShape(shape) for shape in ([], [None], [], [])),
            parallel_iterations=1,  # a step reads what the previous one wrote
        )

    def _next_batch(
        self, iterator: tf.distribute.DistributedIterator, wait_sec: tf.Tensor, *, after: list[tf.Tensor]
    ) -> tuple[Batch, tf.Tensor]:
        """The next batch, and `wait_sec` plus the time that it took since the tensors in `after`."""
        with tf.control_dependencies(after):  # after the previous step
            asked = now()
            self._asked.assign_add(1)
        batch = iterator.get_next()
        arrived = [
            tensor
            for values in tf.nest.flatten(batch)
            for tensor in self._strategy.experimental_local_results(values)
        ]
        with tf.control_dependencies(arrived):
            self._arrived.assign_add(1)
            return batch, wait_sec + (now() - asked)

    def _one_step(self, batch: Batch, done: tf.Tensor, inputs: LoopInputs) -> tuple[tf.Tensor, tf.Tensor]:
        """(metrics, outcome) of one step on every replica (in cross-replica context)."""
        start = inputs.start
        of_step = start._replace(
            step=start.step + done,
            examples=start.examples + done * tf.cast(start.global_batch, tf.int64),
        )
        settings = self._settings(of_step, inputs)

        def run(pattern: int) -> tuple[tf.Tensor, tf.Tensor]:
            return self._run_pattern(pattern, batch, of_step, settings, inputs.accumulation)

        patterns = len(self._due.patterns)
        if patterns == 1:
            return run(0)
        pattern = self._due.traced_pattern_at(step=of_step.step, examples=of_step.examples)
        # The condition is outside the replicas, because they must not communicate inside a condition.
        return tf.switch_case(pattern, [functools.partial(run, i) for i in range(patterns)])

    def _settings(self, of_step: StepInputs, inputs: LoopInputs) -> dict[str, PhaseSettings]:
        """Settings of every phase's update in one step."""
        return phase_settings(
            self._task,
            self._scaling,
            examples=of_step.examples,
            global_batch=of_step.global_batch,
            warmup=inputs.warmup,
            plateau_factors=inputs.plateau_factors,
        )

    def _run_pattern(
        self,
        pattern: int,
        batch: Batch,
        inputs: StepInputs,
        settings: Mapping[str, PhaseSettings],
        accumulation: tf.Tensor | int | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(metrics, outcome) of a step in which the phases of this pattern are due."""
        phases = self._due.patterns[pattern]
        before = run_on_replicas(self._strategy, self._undo.read) if self._undo else []
        if accumulation is None:
            metrics, outcome = self._whole(batch, inputs, settings, phases)
        else:
            metrics, outcome = self._accumulated_step.run(batch, inputs, accumulation, settings, phases)
        self._metric_names[pattern] = list(metrics)
        if self._undo:
            run_on_replicas(self._strategy, self._undo.restore, outcome, before)
        return tf.stack(list(metrics.values())), outcome

    def _whole(
        self,
        batch: Batch,
        inputs: StepInputs,
        settings: Mapping[str, PhaseSettings],
        phases: tuple[Phase, ...],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """(metrics, outcome) of a step in one micro-batch."""
        per_replica = run_on_replicas(self._strategy, self._whole_step, batch, inputs, settings, phases)
        # All returned values are the same on every replica.
        return tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0], per_replica
        )
