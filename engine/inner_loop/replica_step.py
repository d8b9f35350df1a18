"""A step on one replica: what the task sees of it, and the whole step if it is one micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from engine.inner_loop.batch_rows import ReplicaRows, micro_step, whole_step
from engine.inner_loop.compiled_parts import compiled_forward, compiled_losses, uncompiled
from engine.inner_loop.gradients import phase_gradients
from engine.inner_loop.phase_update import APPLIED, PhaseSettings, PhaseSums, phase_sums, update
from engine.inner_loop.recomputation import RecomputedNetwork
from engine.inner_loop.train_state import TrainState
from engine.replica_context import set_example_weights
from engine.task import Phase, Seeds, Step, Task


class StepInputs(NamedTuple):
    """Inputs of a step besides the batch.

    Attributes:
      step: int64, steps done before.
      examples: int64, examples drawn before.
      global_batch: int32, examples of this step; a Python int if shapes are static.
      micro_batch: rows of a micro-batch on each replica: int32, or a Python int if shapes are static; None if
        batches are not padded.
    """

    step: tf.Tensor
    examples: tf.Tensor
    global_batch: tf.Tensor | int
    micro_batch: tf.Tensor | int | None


class ForwardPass(NamedTuple):
    """A recorded call of `Task.forward`.

    Attributes:
      view: the step with the outputs, for losses.
      tape: recorded the pass; persistent.
      networks: names of the networks that the pass used.
    """

    view: Step
    tape: tf.GradientTape
    networks: frozenset[str]

    def tape_for(self, phase: Phase) -> tf.GradientTape:
        """This tape if the phase updates a network that the pass used, otherwise a new one."""
        return self.tape if self.networks & set(phase.updates) else tf.GradientTape(persistent=True)


class ReplicaStep:
    """The steps of a task on one replica; all methods are called in replica context.

    Args:
      task: its phases are run.
      train_state: the variables.
      seed: of all randomness in the networks and losses.
      label_roles: as in `Step`.
      recompute: whether activations are computed again in the backward pass instead of being kept.
      compile_parts: whether XLA compiles the parts between the all-reduces; see
        `engine.inner_loop.compiled_parts`.

    Attributes:
      task: as given.
      train_state: as given.
      traces: how often a step, or a phase of it, was traced.
    """

    def __init__(
        self,
        *,
        task: Task,
        train_state: TrainState,
        seed: int,
        label_roles: Iterable[str] = (),
        recompute: bool = False,
        compile_parts: bool = False,
    ):
        self.task = task
        self.train_state = train_state
        self._seed = seed
        self._label_roles = frozenset(label_roles)
        self._networks: Mapping[str, Any] = train_state.networks
        if recompute:
            self._networks = {name: RecomputedNetwork(net) for name, net in train_state.networks.items()}
        self._forward_part = compiled_forward if compile_parts else uncompiled
        self._losses_part = compiled_losses if compile_parts else uncompiled
        self.traces = 0

    def run(
        self,
        batch: Mapping[str, tf.Tensor],
        inputs: StepInputs,
        settings: Mapping[str, PhaseSettings],
        phases: Sequence[Phase],
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Runs a step as one micro-batch, with one forward pass for all phases.

        Args:
          batch: this replica's rows.
          inputs: of the step.
          settings: of each phase's update.
          phases: the phases that are due.

        Returns:
          Metrics of the phases, and the outcome of the step: see `engine.inner_loop.phase_update.APPLIED`.
        """
        self.traces += 1
        if inputs.micro_batch is None:
            rows = whole_step(inputs.global_batch)
        else:
            rows = micro_step(inputs.global_batch, 0, inputs.micro_batch)
        view = self.view(batch, inputs, rows)
        metrics: dict[str, tf.Tensor] = {}
        outcome = tf.constant(APPLIED)
        with set_example_weights(rows.weights if rows.is_padded else None):
            forward = self.forward(view, tf.constant(0))
            for index, phase in enumerate(phases):
                tape = forward.tape_for(phase)
                self.reseed(view, tf.constant(0), part=index + 1)
                phase_metrics, phase_outcome = update(
                    phase,
                    self.sums(phase, forward.view, tape, rows),
                    settings[phase.name],
                    train_state=self.train_state,
                    global_batch=rows.global_batch,
                )
                metrics |= phase_metrics
                outcome = tf.maximum(outcome, phase_outcome)
        return metrics, outcome

    def forward(self, view: Step, micro: tf.Tensor) -> ForwardPass:
        """Runs and records the forward pass of micro-batch number `micro`."""
        networks = _WatchedNetworks(view.networks)
        tape = tf.GradientTape(persistent=True)
        self.reseed(view, micro, part=0)
        with tape:
            watched = dataclasses.replace(view, networks=networks)
            outputs = self._forward_part(lambda: self.task.forward(watched))
        return ForwardPass(dataclasses.replace(view, outputs=outputs), tape, frozenset(networks.used))

    def sums(self, phase: Phase, view: Step, tape: tf.GradientTape, rows: ReplicaRows) -> PhaseSums:
        """The sums of the phase over these rows: gradients, losses and numbers for the noise scale."""
        loss_scale = self.train_state.loss_scales.get(phase.name)
        gradients, losses = phase_gradients(
            phase, view, tape, rows, loss_scale=loss_scale, compiled=self._losses_part
        )
        measure_noise = phase.name in self.train_state.noise_scales
        return phase_sums(gradients, losses, rows, measure_noise=measure_noise)

    def view(self, batch: Mapping[str, tf.Tensor], inputs: StepInputs, rows: ReplicaRows) -> Step:
        """What the task sees of these rows, before its forward pass."""
        key = tf.random.experimental.stateless_fold_in(_base_key(self._seed), inputs.step)
        dtype = tf.as_dtype(keras.config.floatx())

        def prepare(values: tf.Tensor) -> tf.Tensor:
            values = rows.slice_micro_batch(values)  # [B, ...]
            return tf.cast(values, dtype) if values.dtype.is_floating else values

        return Step(
            networks=self._networks,
            frozen_networks=self.train_state.frozen_networks,
            batch=tf.nest.map_structure(prepare, batch),
            outputs={},
            state=self.train_state.task_state,
            step=inputs.step,
            examples=inputs.examples,
            seeds=Seeds(
                key=key,
                global_batch=tf.convert_to_tensor(rows.global_batch),
                own=rows.local_rows_of_step,
            ),
            gather=rows.gather,
            own=rows.local_rows,
            label_roles=self._label_roles,
        )

    def reseed(self, view: Step, micro: tf.Tensor, *, part: int) -> None:
        """Sets the seed states of Keras's random layers: of the step, replica, micro-batch and part.

        A repeated pass with the same part draws the same masks.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        key = view.seeds.key
        for number in (replica, micro):
            key = tf.random.experimental.stateless_fold_in(key, number)
        generators = [
            layer.seed_generator
            for network in self.train_state.networks.values()
            for layer in network._flatten_layers()  # noqa: SLF001 (Keras has no public walk over nested layers)
            if hasattr(layer, "seed_generator")
        ]
        for index, generator in enumerate(generators):
            seed = tf.random.experimental.stateless_fold_in(key, 1000 * part + index)
            state = generator.state.value
            state.assign(tf.cast(seed, state.dtype))


class _WatchedNetworks(Mapping[str, keras.Model]):
    """Networks by name. `used` has the names that were looked up."""

    def __init__(self, networks: Mapping[str, keras.Model]):
        self._networks = networks
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> keras.Model:
        if name in self._networks:
            self.used.add(name)
        return self._networks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


def _base_key(seed: int) -> tf.Tensor:
    """int32 [2] from a seed of any size."""
    return tf.constant(np.random.SeedSequence(seed).generate_state(2).astype(np.int32))
