"""A step in several micro-batches: the same update as in one, with the memory of one micro-batch.

for each due phase:
  for each micro-batch:                        a while loop around strategy.run: one trace for any count
    forward pass, or its kept outputs          see below
    losses and gradients of its rows, added up
  one all-reduce, one update, one move of the moving statistics

The first phase makes the forward pass and keeps its outputs for the phases that take them as
constants. A phase that differentiates through the forward pass makes it again, with the same seeds and
the weights and statistics of the step's start. Variables that a pass moves (moving statistics of batch
norm, spectral vectors) start every micro-batch from the same value and then move once, by the mean of
their moves weighted by examples. A task's own state moves from micro-batch to micro-batch, which
follow one another in example order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.distribution.strategy_run import run_on_replicas
from engine.errors import ConfigurationError
from engine.inner_loop.batch_rows import ReplicaRows, micro_step
from engine.inner_loop.phase_update import APPLIED, PhaseSettings, PhaseSums, update
from engine.inner_loop.replica_step import ForwardPass, ReplicaStep, StepInputs
from engine.task import Phase, Step, set_example_weights

Outputs = Mapping[str, Any]
"""Of the forward pass, by name: tensors [rows, ...], or nested structures of them."""


class _StepStart(NamedTuple):
    """What the passes of later phases go back to, by replica.

    Attributes:
      moving: what passes move (see `AccumulatedStep`), at the start of the step.
      current: the same, at the start of this phase.
      updated_weights: of the step's start: weights that an earlier phase has updated since, and that this
        phase's forward pass needs.
      outputs: of the first phase's forward pass, for all rows of the step.
    """

    moving: Sequence[Any]
    current: Sequence[Any]
    updated_weights: Sequence[Any]
    outputs: Outputs


class _PassResult(NamedTuple):
    """What one micro-batch of one phase gives on a replica, and the micro-batches so far together.

    Attributes:
      sums: added over micro-batches.
      moves: of the moving variables, weighted by the micro-batch's part of all examples; added too.
      outputs: of the forward pass, for later phases; joined over micro-batches.
    """

    sums: PhaseSums
    moves: Sequence[tf.Tensor]
    outputs: Outputs


class _GrowingOutputs:
    """Joins outputs by concatenation: one trace for any number of micro-batches."""

    def start(self, outputs: Outputs) -> Outputs:
        """The outputs of micro-batch 0."""
        return outputs

    def append(self, so_far: Outputs, new: Outputs, micro: tf.Tensor) -> Outputs:
        """Those so far with those of micro-batch number `micro`."""
        del micro
        return tf.nest.map_structure(lambda a, b: tf.concat([a, b], axis=0), so_far, new)

    def loop_shape(self, tensor: tf.Tensor) -> tf.TensorShape:
        """What all iterations of the loop have in common of a tensor's shape."""
        return tf.TensorShape([None, *tensor.shape[1:]])


class _PreallocatedOutputs:
    """Writes outputs into rows of zeros, reserved at the start: static shapes."""

    def __init__(self, accumulation: int):
        self._accumulation = accumulation

    def start(self, outputs: Outputs) -> Outputs:
        """The outputs of micro-batch 0, with room for all others."""

        def enlarge(x: tf.Tensor) -> tf.Tensor:
            missing = (self._accumulation - 1) * x.shape[0]
            return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))

        return tf.nest.map_structure(enlarge, outputs)

    def append(self, so_far: Outputs, new: Outputs, micro: tf.Tensor) -> Outputs:
        """Those so far with those of micro-batch number `micro`."""

        def write(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            indices = micro * b.shape[0] + tf.range(b.shape[0])
            return tf.tensor_scatter_nd_update(a, indices[:, tf.newaxis], b)

        return tf.nest.map_structure(write, so_far, new)

    def loop_shape(self, tensor: tf.Tensor) -> tf.TensorShape:
        """What all iterations of the loop have in common of a tensor's shape: all of it."""
        return tensor.shape


class AccumulatedStep:
    """Runs steps of several micro-batches; called in cross-replica context.

    Args:
      replica_step: the parts of a step on one replica.
      strategy: over whose replicas.
    """

    def __init__(self, *, replica_step: ReplicaStep, strategy: tf.distribute.Strategy):
        self._replica_step = replica_step
        self._strategy = strategy
        self._networks = replica_step.train_state.networks
        # Every weight that a pass may move: moving statistics, spectral vectors.
        self._moving = [w for network in self._networks.values() for w in network.non_trainable_weights]
        # Names of networks, set when the first phase's pass is traced; those of later phases need it.
        self._used_in_forward: frozenset[str] = frozenset()

    def run(
        self,
        batch: Mapping[str, Any],
        inputs: StepInputs,
        accumulation: tf.Tensor | int,
        settings: Mapping[str, PhaseSettings],
        phases: tuple[Phase, ...],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Does a step in `accumulation` micro-batches; returns what `ReplicaStep.run` returns."""
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
        """Whether the last micro-batch has fewer examples, and so other static shapes, than the others."""
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

        `one_pass` is a `tf.function`: called before the loop and in it, it is traced once. A short last
        micro-batch has a trace of its own, by its number as a Python int.
        """
        is_static = isinstance(accumulation, int)
        store = _PreallocatedOutputs(accumulation) if is_static else _GrowingOutputs()
        first = one_pass(tf.constant(0))
        first = first._replace(outputs=self._run(store.start, first.outputs))
        # A loop variable may be a PerReplica value if it is flattened into its parts.
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
            # Passes share variables, and memory is to hold one of them at a time.
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
        return _PassResult(sums, moves, _checked(view.outputs) if keeps_outputs else {})

    def _first_forward(self, view: Step, micro: tf.Tensor | int, start: _StepStart) -> ForwardPass:
        """The forward pass of the first phase; its moves count."""
        _write(self._moving, start.moving)
        forward = self._replica_step.forward(view, micro)
        self._used_in_forward = forward.networks
        return forward

    def _repeated_forward(
        self, view: Step, micro: tf.Tensor | int, start: _StepStart, *, earlier: Sequence[Phase]
    ) -> ForwardPass:
        """The forward pass again, as at the step's start; its moves were counted in the first phase."""
        updated = self._forward_weights(earlier)
        now = _read(updated)
        _write(self._moving, start.moving)
        _write(updated, start.updated_weights[: len(updated)])
        forward = self._replica_step.forward(view, micro)
        _write(self._moving, start.current)
        _write(updated, now)
        return forward

    def _with_kept_outputs(self, view: Step, rows: ReplicaRows, start: _StepStart) -> Step:
        """The step with the outputs that the first phase kept, as constants."""
        _write(self._moving, start.current)
        outputs = tf.nest.map_structure(rows.slice_micro_batch, start.outputs)
        return dataclasses.replace(view, outputs=outputs)

    def _moves(self, rows: ReplicaRows, start: _StepStart) -> list[tf.Tensor]:
        """How far this pass has moved each moving variable, times its part of the step's examples."""
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
        # The loop's results carry no device, by which a collective of several workers finds its replica.
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
        """The phases before the last that makes the forward pass again."""
        replays = [index for index, phase in enumerate(phases) if self._differentiates_forward(phase)]
        return phases[: max(replays, default=0)]

    def _forward_weights(self, phases: Sequence[Phase]) -> list[keras.Variable]:
        """Trainable weights that the forward pass uses and these phases update."""
        names = dict.fromkeys(n for phase in phases for n in phase.updates if n in self._used_in_forward)
        return [weight for name in names for weight in self._networks[name].trainable_weights]

    def _run(self, fn: Callable, *args: Any) -> Any:
        return run_on_replicas(self._strategy, fn, *args)


def _join(
    store: _GrowingOutputs | _PreallocatedOutputs, so_far: _PassResult, new: _PassResult, micro: tf.Tensor
) -> _PassResult:
    """The results of the micro-batches so far and of number `micro` together."""
    sums, moves = tf.nest.map_structure(tf.add, so_far[:2], new[:2])
    return _PassResult(sums, moves, store.append(so_far.outputs, new.outputs, micro))


def _checked(outputs: Outputs) -> Outputs:
    for name, value in outputs.items():
        if any(tensor.shape.rank == 0 for tensor in tf.nest.flatten(value)):
            raise ConfigurationError(
                f"forward's output {name!r} is a scalar; under accumulation (LARGEST_MICRO_BATCH) each "
                "output has one row per example, [B, ...]"
            )
    return outputs


def _read(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    return [variable.value.read_value() for variable in variables]


def _write(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Sets this replica's copies; an assignment to the mirrored variable would communicate."""
    for variable, value in zip(variables, values, strict=True):
        tf.raw_ops.AssignVariableOp(resource=variable.value.handle, value=value)
