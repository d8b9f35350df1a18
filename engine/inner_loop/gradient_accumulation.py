"""A step in several micro-batches: the same update as in one, with the memory of one micro-batch.

for each due phase:
  for each micro-batch:                        a while loop around strategy.run: one trace for any count
    forward, or its kept outputs               see below
    losses and gradients of its rows, added up
  one all-reduce, one update, one move of the moving statistics

The first phase makes the forward pass and keeps its outputs for the phases that take them as
constants. A phase that differentiates through the forward pass makes it again with the same seeds and
the weights and statistics of the step's start. Variables that a pass moves (moving statistics of batch
norm, spectral vectors) start every micro-batch from the same value and then move once, by the mean of
their moves weighted by examples. A task's own state moves from micro-batch to micro-batch, which
follow one another in example order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.distribution.strategy_run import run_on_replicas
from engine.errors import ConfigurationError
from engine.inner_loop.batch_rows import micro_step
from engine.inner_loop.phase_update import APPLIED, update
from engine.inner_loop.replica_step import PhaseSettings, ReplicaStep, StepInputs
from engine.task import Phase, weighted_examples


class _Kept(NamedTuple):
    """What the passes over the micro-batches share, by replica.

    Args:
      start, current: what passes move, at the start of the step and of this phase.
      replaced: weights of the step's start that an earlier phase has updated since and that this
        phase's forward pass needs.
      outputs: of the forward pass for all rows of the step.
    """

    start: Sequence[Any]
    current: Sequence[Any]
    replaced: Sequence[Any]
    outputs: Any


class AccumulatedStep:
    """Runs steps of several micro-batches; called in cross-replica context.

    Args:
      replica_step: the parts of a step on one replica.
      strategy: over whose replicas.
    """

    def __init__(self, *, replica_step: ReplicaStep, strategy: tf.distribute.Strategy):
        self._replica_step = replica_step
        self._strategy = strategy
        # Every weight that a pass may move: moving statistics, spectral vectors.
        self._moving = [
            weight
            for network in replica_step.train_state.networks.values()
            for weight in network.non_trainable_weights
        ]
        self._used_in_forward: frozenset[str] = frozenset()  # written while the first pass is traced

    def run(
        self,
        batch,
        inputs: StepInputs,
        accumulation: tf.Tensor | int,
        settings: Mapping[str, PhaseSettings],
        phases: tuple[Phase, ...],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """As `ReplicaStep.run`, in `accumulation` micro-batches."""
        start = self._run(_read, self._moving)
        kept = _Kept(start, start, (), {})
        metrics, outcome = {}, tf.constant(APPLIED)
        for index, phase in enumerate(phases):
            sums, moves, outputs = self._over_micro_batches(
                lambda micro, index=index, kept=kept: self._pass(batch, micro, inputs, kept, phases, index),
                accumulation,
                self._is_last_short(inputs),
            )
            if index == 0:
                kept = kept._replace(outputs=outputs, replaced=self._run(_read, self._replaced(phases)))
            per_replica = self._run(self._finish, phase, sums, kept.current, moves, inputs, settings)
            phase_metrics, of_phase = tf.nest.map_structure(
                lambda value: self._strategy.experimental_local_results(value)[0], per_replica
            )
            kept = kept._replace(current=self._run(_read, self._moving))
            metrics |= phase_metrics
            outcome = tf.maximum(outcome, of_phase)
        return metrics, outcome

    def _is_last_short(self, inputs: StepInputs) -> bool:
        """Whether the last micro-batch has fewer examples, and so other static shapes, than the others."""
        if not isinstance(inputs.micro_batch, int):
            return False
        return inputs.global_batch % (self._strategy.num_replicas_in_sync * inputs.micro_batch) > 0

    def _over_micro_batches(self, one_pass, accumulation: tf.Tensor | int, is_last_short: bool):
        """Sums and moves added, outputs joined; `one_pass` is traced once and called in two places.

        A short last micro-batch has a trace of its own, by its number as a Python int.
        """
        first = one_pass(tf.constant(0))
        is_static = isinstance(accumulation, int)
        if is_static:
            first = self._run(_with_room, first, accumulation)
        flat = tf.nest.flatten(first, expand_composites=True)
        grows = [is_output and not is_static for is_output in self._is_output(first)]

        def body(micro, *flat):
            so_far = tf.nest.pack_sequence_as(first, flat, expand_composites=True)
            joined = self._run(_join, so_far, one_pass(micro), micro if is_static else None)
            return micro + 1, *tf.nest.flatten(joined, expand_composites=True)

        _, *flat = tf.while_loop(
            lambda micro, *_: micro < (accumulation - 1 if is_last_short else accumulation),
            body,
            (tf.constant(1), *flat),
            # Outputs grow with every micro-batch, unless there is room for all of them.
            shape_invariants=(tf.TensorShape([]), *map(_growing, grows, flat)),
            # Passes share variables, and memory is to hold one of them at a time.
            parallel_iterations=1,
        )
        whole = tf.nest.pack_sequence_as(first, flat, expand_composites=True)
        if is_last_short:
            last = accumulation - 1
            whole = self._run(_join, whole, one_pass(last), tf.constant(last))
        return whole

    @staticmethod
    def _is_output(first) -> list[bool]:
        sums, moves, outputs = (tf.nest.flatten(part, expand_composites=True) for part in first)
        return [False] * len(sums + moves) + [True] * len(outputs)

    @tf.function(autograph=False)
    def _pass(self, batch, micro, inputs, kept, phases, index):
        """One micro-batch of one phase on every replica: (sums, moves, outputs to keep)."""
        return self._run(self._replica_pass, batch, micro, inputs, kept, phases, index)

    def _replica_pass(self, batch, micro, inputs: StepInputs, kept: _Kept, phases, index: int):
        step, phase = self._replica_step, phases[index]
        step.traces += 1
        rows = micro_step(inputs.global_batch, micro, inputs.micro_batch)
        view = step.view(batch, inputs, rows)
        with weighted_examples(rows.weights):
            tape = tf.GradientTape(persistent=True)
            if index == 0 or self._shares(phase):
                replaced = self._replaced(phases[: index + 1]) if index else []
                now = _read(replaced)
                _write(self._moving, kept.start)
                _write(replaced, kept.replaced[: len(replaced)])
                step.reseed(view, micro, part=0)
                with tape:
                    view = dataclasses.replace(view, outputs=step.task.forward(view))
                if index == 0:
                    self._used_in_forward = frozenset(view.networks.used)
                else:  # its moves were counted in the first phase
                    _write(self._moving, kept.current)
                    _write(replaced, now)
            else:
                _write(self._moving, kept.current)
                view = dataclasses.replace(view, outputs=tf.nest.map_structure(rows.take, kept.outputs))
            if not self._shares(phase):
                tape = tf.GradientTape(persistent=True)
            step.reseed(view, micro, part=index + 1)
            gradients, losses = step.gradients(phase, view, tape, rows)
        share = tf.cast(rows.examples, tf.float64) / tf.cast(rows.global_batch, tf.float64)
        moves = [
            tf.cast(share, after.dtype) * (after - before)
            for after, before in zip(_read(self._moving), kept.current, strict=True)
        ]
        keeps = index == 0 and not all(self._shares(later) for later in phases[1:])
        outputs = _checked(view.outputs) if keeps else {}
        return step.sums(phase, gradients, losses, rows), moves, outputs

    def _finish(self, phase, sums, current, moves, inputs: StepInputs, settings):
        _write(self._moving, [before + move for before, move in zip(current, moves, strict=True)])
        # The loop's results carry no device, by which a collective of several workers finds its replica.
        sums = tf.nest.map_structure(tf.identity, sums)
        return update(
            phase,
            sums,
            settings[phase.name].hyperparameters,
            train_state=self._replica_step.train_state,
            global_batch=inputs.global_batch,
            ema_decay=settings[phase.name].ema_decay,
        )

    def _shares(self, phase: Phase) -> bool:
        """Whether the phase differentiates through the forward pass."""
        return bool(self._used_in_forward & set(phase.updates))

    def _replaced(self, phases: Sequence[Phase]) -> list[keras.Variable]:
        """Trainable weights used in forward that phases before the last update, if any later phase
        makes the forward pass again."""
        names = []
        for index, phase in enumerate(phases[:-1]):
            if any(self._shares(later) for later in phases[index + 1 :]):
                names += [n for n in phase.updates if n in self._used_in_forward and n not in names]
        networks = self._replica_step.train_state.networks
        return [weight for name in names for weight in networks[name].trainable_weights]

    def _run(self, fn, *args):
        return run_on_replicas(self._strategy, fn, *args)


def _with_room(first, accumulation: int):
    """(sums, moves, outputs) of the first micro-batch, the outputs with rows of zeros for all others."""

    def enlarged(x):
        missing = (accumulation - 1) * x.shape[0]
        return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))

    sums, moves, outputs = first
    return sums, moves, tf.nest.map_structure(enlarged, outputs)


def _join(so_far, new, micro: tf.Tensor | None):
    """(sums, moves, outputs) of the micro-batches so far and of the next; with its number, into its room."""

    def joined(a, b):
        if micro is None:
            return tf.concat([a, b], axis=0)  # [rows, ...]
        places = micro * b.shape[0] + tf.range(b.shape[0])
        return tf.tensor_scatter_nd_update(a, places[:, tf.newaxis], b)

    sums, moves = tf.nest.map_structure(tf.add, so_far[:2], new[:2])
    return sums, moves, tf.nest.map_structure(joined, so_far[2], new[2])


def _checked(outputs):
    for name, value in outputs.items():
        if any(tensor.shape.rank == 0 for tensor in tf.nest.flatten(value)):
            raise ConfigurationError(
                f"forward's output {name!r} is a scalar; under accumulation (LARGEST_MICRO_BATCH) each "
                "output has one row an example, [B, ...]"
            )
    return outputs


def _growing(grows: bool, tensor: tf.Tensor) -> tf.TensorShape:
    return tf.TensorShape([None, *tensor.shape[1:]]) if grows else tensor.shape


def _read(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    return [variable.value.read_value() for variable in variables]


def _write(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> None:
    """Sets this replica's copies; an assignment to the mirrored variable would communicate."""
    for variable, value in zip(variables, values, strict=True):
        tf.raw_ops.AssignVariableOp(resource=variable.value.handle, value=value)
