"""A step in several micro-batches: the update of the whole batch, with the memory of one micro-batch.

for each due phase:
  for each micro-batch:                        a while loop around strategy.run: one trace for any count
    forward pass, or its kept outputs          see below
    losses and gradients of its rows, added up
  one all-reduce, one update, one move of the moving statistics

The first phase runs the forward pass and keeps its outputs for the phases that use them as constants. A phase
that differentiates through the forward pass repeats it, with the same seeds and with the weights and
statistics of the step's start. Variables that a pass moves (moving statistics of batch norm, spectral
vectors) start every micro-batch from the same value and move once at the end, by the mean of their moves
weighted by examples. A task's own state changes from micro-batch to micro-batch, in example order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.distribution.strategy_run import run_on_replicas
from engine.inner_loop.batch_rows import ReplicaRows, micro_step
from engine.inner_loop.kept_outputs import GrowingOutputs, Outputs, PreallocatedOutputs, check_outputs
from engine.inner_loop.phase_update import APPLIED, PhaseSettings, PhaseSums, update
from engine.inner_loop.replica_step import ForwardPass, ReplicaStep, StepInputs
from engine.replica_context import set_example_weights
from engine.task import Phase, Step


class _StepStart(NamedTuple):
    """Values that the passes of later phases restore, for each replica.

    Attributes:
      moving: moving variables (see `AccumulatedStep`) at the start of the step.
      current: moving variables at the start of this phase.
      updated_weights: values at the start of the step of the weights that this phase's forward pass needs and
        that an earlier phase has updated since.
      outputs: outputs of the first phase's forward pass, for all rows of the step.
    """

    moving: Sequence[Any]
    current: Sequence[Any]
    updated_weights: Sequence[Any]
    outputs: Outputs


class _PassResult(NamedTuple):
    """The result of one micro-batch of a phase on a replica, or of several micro-batches together.

    Attributes:
      sums: added up over micro-batches.
      moves: of the moving variables, weighted by the micro-batch's part of all examples; added up too.
      outputs: of the forward pass, for later phases; joined over micro-batches.
    """

    sums: PhaseSums
    moves: Sequence[tf.Tensor]
    outputs: Outputs


class AccumulatedStep:
    """Runs steps of several micro-batches; called in cross-replica context.

    Args:
      replica_step: the parts of a step on one replica.
      strategy: runs the steps on its replicas.
    """

    def __init__(self, *, replica_step: ReplicaStep, strategy: tf.distribute.Strategy):
        self._replica_step = replica_step
        self._strategy = strategy
        self._networks = replica_step.train_state.networks
        # The moving variables, which a pass may move: moving statistics, spectral vectors.
        self._moving = [w for network in self._networks.values() for w in network.non_trainable_weights]
        # Names of networks. Set when the first phase's pass is traced; the passes of later phases need it.
        self._used_in_forward: frozenset[str] = frozenset()

    def run(
        self,
        batch: Mapping[str, Any],
        inputs: StepInputs,
        accumulation: tf.Tensor | int,
        settings: Mapping[str, PhaseSettings],
        phases: tuple[Phase, ...],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Runs a step in `accumulation` micro-batches; returns what `ReplicaStep.run` returns."""
        moving = self._run(_read, self._moving)
        start = _StepStart(moving, moving, (), {})
        metrics: dict[str, tf.Tensor] = {}
        outcome = tf.constant(APPLIED)
        for index, phase in enumerate(phases):
            one_pass = functools.partial(
                self._pass, batch, inputs=inputs, start=start, phases=phases, index=index
            )
            total = self._over_micro_batches(
                one_pass, accumulation, is_last_short=self._is_last_short(inputs)
            )
            if index == 0:
                weights = self._run(_read, self._forward_weights(self._before_last_replay(phases)))
                start = start._replace(outputs=total.outputs, updated_weights=weights)
            per_replica = self._run(
                self._finish, phase, total.sums, start.current, total.moves, inputs, settings
            )
            phase_metrics, phase_outcome = tf.nest.map_structure(
                lambda value: self._strategy.experimental_local_results(value)[0], per_replica
            )
            start = start._replace(current=self._run(_read, self._moving))
            metrics |= phase_metrics
            outcome = tf.maximum(outcome, phase_outcome)
        return metrics, outcome

    def _is_last_short(self, inputs: StepInputs) -> bool:
        """Whether the last micro-batch has fewer examples than the others, and so other static shapes."""
        if not isinstance(inputs.micro_batch, int):
            return False
        return inputs.global_batch % (self._strategy.num_replicas_in_sync * inputs.micro_batch) > 0

    def _over_micro_batches(
        self,
        one_pass: Callable[[tf.Tensor | int], _PassResult],
        accumulation: tf.Tensor | int,
        *,
        is_last_short: bool,
    ) -> _PassResult:
        """The results of all micro-batches together.

        `one_pass` is a `tf.function`, traced once although it is called before the loop and inside it. A
        short last micro-batch gets its number as a Python int, and so a trace of its own.
        """
        is_static = isinstance(accumulation, int)
        store = PreallocatedOutputs(accumulation) if is_static else GrowingOutputs()
        first = one_pass(tf.constant(0))
        first = first._replace(outputs=self._run(store.start, first.outputs))
        # PerReplica values can be loop variables only if they are flattened into their components.
        flat = tf.nest.flatten(first, expand_composites=True)
        outputs = tf.nest.flatten(first.outputs, expand_composites=True)
        summed = flat[: len(flat) - len(outputs)]
        shapes = [tensor.shape for tensor in summed] + [store.loop_shape(tensor) for tensor in outputs]

        def body(micro: tf.Tensor, *flat: tf.Tensor) -> tuple[tf.Tensor, ...]:
            so_far = tf.nest.pack_sequence_as(first, flat, expand_composites=True)
            joined = self._run(_join, store, so_far, one_pass(micro), micro)
            return micro + 1, *tf.nest.flatten(joined, expand_composites=True)

        _, *flat = tf.while_loop(
            lambda micro, *_: micro < (accumulation - 1 if is_last_short else accumulation),
            body,
            (tf.constant(1), *flat),
            shape_invariants=(tf.TensorShape([]), *shapes),
            # Passes share variables, and memory should hold one pass at a time.
            parallel_iterations=1,
        )
        total = tf.nest.pack_sequence_as(first, flat, expand_composites=True)
        if is_last_short:
            last = accumulation - 1
            total = self._run(_join, store, total, one_pass(last), tf.constant(last))
        return total

    @tf.function(autograph=False)
    def _pass(
        self,
        batch: Mapping[str, Any],
        micro: tf.Tensor | int,
        inputs: StepInputs,
        start: _StepStart,
        phases: tuple[Phase, ...],
        index: int,
    ) -> _PassResult:
        """One micro-batch of phase number `index` on every replica."""
        return self._run(self._replica_pass, batch, micro, inputs, start, phases, index)

    def _replica_pass(
        self,
        batch: Mapping[str, tf.Tensor],
        micro: tf.Tensor | int,
        inputs: StepInputs,
        start: _StepStart,
        phases: tuple[Phase, ...],
        index: int,
    ) -> _PassResult:
        """One micro-batch of phase number `index` (in replica context)."""
        step, phase = self._replica_step, phases[index]
        step.traces += 1
        rows = micro_step(inputs.global_batch, micro, inputs.micro_batch)
        view = step.view(batch, inputs, rows)
        with set_example_weights(rows.weights):
            if index == 0:
                forward = self._first_forward(view, micro, start)
                view, tape = forward.view, forward.tape_for(phase)
            elif self._differentiates_forward(phase):
                view, tape, _ = self._repeated_forward(view, micro, start, earlier=phases[:index])
            else:
                view, tape = self._with_kept_outputs(view, rows, start), tf.GradientTape(persistent=True)
            step.reseed(view, micro, part=index + 1)
            sums = step.sums(phase, view, tape, rows)
        moves = self._moves(rows, start)
        keeps_outputs = index == 0 and not all(map(self._differentiates_forward, phases[1:]))
        return _PassResult(sums, moves, check_outputs(view.outputs) if keeps_outputs else {})

    def _first_forward(self, view: Step, micro: tf.Tensor | int, start: _StepStart) -> ForwardPass:
        """The forward pass of the first phase, whose moves count."""
        _write(self._moving, start.moving)
        forward = self._replica_step.forward(view, micro)
        self._used_in_forward = forward.networks
        return forward

    def _repeated_forward(
        self, view: Step, micro: tf.Tensor | int, start: _StepStart, *, earlier: Sequence[Phase]
    ) -> ForwardPass:
        """Repeats the forward pass as at the step's start. Its moves were counted in the first phase."""
        updated = self._forward_weights(earlier)
        now = _read(updated)
        _write(self._moving, start.moving)
        _write(updated, start.updated_weights[: len(updated)])
        forward = self._replica_step.forward(view, micro)
        _write(self._moving, start.current)
        _write(updated, now)
        return forward

    def _with_kept_outputs(self, view: Step, rows: ReplicaRows, start: _StepStart) -> Step:
        """The step with the outputs kept by the first phase, as constants."""
        _write(self._moving, start.current)
        outputs = tf.nest.map_structure(rows.slice_micro_batch, start.outputs)
        return dataclasses.replace(view, outputs=outputs)

    def _moves(self, rows: ReplicaRows, start: _StepStart) -> list[tf.Tensor]:
        """How far this pass moved each moving variable, times the micro-batch's part of the examples."""
        share = tf.cast(rows.examples, tf.float64) / tf.cast(rows.global_batch, tf.float64)
        return [
            tf.cast(share, after.dtype) * (after - before)
            for after, before in zip(_read(self._moving), start.current, strict=True)
        ]

    def _finish(
        self,
        phase: Phase,
        sums: PhaseSums,
        current: Sequence[tf.Tensor],
        moves: Sequence[tf.Tensor],
        inputs: StepInputs,
        settings: Mapping[str, PhaseSettings],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Moves the moving variables once and updates the phase (in replica context)."""
        _write(self._moving, [before + move for before, move in zip(current, moves, strict=True)])
        # Collectives of several workers find their replica by the device of a tensor; loop results have none.
        sums = tf.nest.map_structure(tf.identity, sums)
        return update(
            phase,
            sums,
            settings[phase.name],
            train_state=self._replica_step.train_state,
            global_batch=inputs.global_batch,
        )

    def _differentiates_forward(self, phase: Phase) -> bool:
        return bool(self._used_in_forward & set(phase.updates))

    def _before_last_replay(self, phases: Sequence[Phase]) -> Sequence[Phase]:
        """The phases before the last one that repeats the forward pass."""
        replays = [index for index, phase in enumerate(phases) if self._differentiates_forward(phase)]
        return phases[: max(replays, default=0)]

    def _forward_weights(self, phases: Sequence[Phase]) -> list[keras.Variable]:
        """Trainable weights that the forward pass uses and these phases update."""
        names = dict.fromkeys(n for phase in phases for n in phase.updates if n in self._used_in_forward)
        return [weight for name in names for weight in self._networks[name].trainable_weights]

    def _run(self, fn: Callable, *args: Any) -> Any:
        return run_on_replicas(self._strategy, fn, *args)


def _join(
    store: GrowingOutputs | PreallocatedOutputs, so_far: _PassResult, new: _PassResult, micro: tf.Tensor
) -> _PassResult:
    """The results of the micro-batches so far and of number `micro` together."""
    sums, moves = tf.nest.map_structure(tf.add, so_far[:2], new[:2])
    return _PassResult(sums, moves, store.append(so_far.outputs, new.outputs, micro))


def _read(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    return [variable.value.read_value() for variable in variables]


def _write(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Sets this replica's copies; an assignment to the mirrored variable would communicate."""
    for variable, value in zip(variables, values, strict=True):
        tf.raw_ops.AssignVariableOp(resource=variable.value.handle, value=value)
