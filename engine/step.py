"""The compiled training step: forward, then for each phase loss, gradients, all-reduce and update.

train_loop (compiled)        while step < steps and all finite:
  batch = next(iterator)
  strategy.run(replica_step)   forward once, then every due phase of the table in its order
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from engine.learning_rate import LearningRate
from engine.rows import ReplicaRows, replica_rows
from engine.state import TrainState
from engine.task import ConfigurationError, Phase, Seeds, Step, Task, Term, weighted_examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What a call of the compiled loop did.

    Args:
      steps: steps done; fewer than asked if a loss or gradient was not finite in the last of them.
      metrics: `loss/<phase>/<term>`, `grad_norm/<phase>` and `learning_rate/<phase>` of the last step;
        phases that were not due are missing.
      data_wait_sec: seconds spent waiting for batches.
      finite: whether every loss and gradient of the last step was finite. If not, the phase concerned
        was not applied.
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
      learning_rate: gives the learning rate of an optimizer at a position and batch size.
      seed: of all randomness in the networks and losses.
    """

    def __init__(
        self,
        *,
        task: Task,
        strategy: tf.distribute.Strategy,
        train_state: TrainState,
        learning_rate: LearningRate,
        seed: int,
    ):
        self._task = task
        self._strategy = strategy
        self._state = train_state
        self._learning_rate = learning_rate
        self._seed = seed
        self._dtype = tf.as_dtype(keras.config.floatx())
        phases = task.phases()
        self._period = math.lcm(*(phase.every for phase in phases))
        due = [tuple(p for p in phases if p.is_due(s)) for s in range(self._period)]
        self._patterns = list(dict.fromkeys(due))  # distinct sets of phases, each traced once
        self._pattern_of_step = [self._patterns.index(pattern) for pattern in due]
        self._metric_names: dict[int, list[str]] = {}  # by pattern, written while tracing
        self.traces = 0  # how often the step was traced; a change of batch size must not add to it

    def run(self, iterator, *, num_steps: int, step: int, examples: int, global_batch: int) -> LoopResult:
        """Does up to `num_steps` steps from the given position; all draw `global_batch` examples."""
        done, metrics, finite, wait_sec = self._loop(
            iterator,
            tf.constant(num_steps, tf.int64),
            tf.constant(step, tf.int64),
            tf.constant(examples, tf.int64),
            tf.constant(global_batch, tf.int32),
        )
        steps = int(done)
        names = self._metric_names[self._pattern_of_step[(step + steps - 1) % self._period]]
        return LoopResult(
            steps=steps,
            metrics=dict(zip(names, (float(value) for value in metrics.numpy()), strict=True)),
            data_wait_sec=float(wait_sec),
            finite=bool(finite),
        )

    @tf.function(autograph=False)
    def _loop(self, iterator, num_steps, step, examples, global_batch):
        def body(done, metrics, finite, wait_sec):
            with tf.control_dependencies([metrics, finite]):  # the step before is done
                asked = tf.timestamp()
            batch = iterator.get_next()
            arrived = [
                tensor
                for values in tf.nest.flatten(batch)
                for tensor in self._strategy.experimental_local_results(values)
            ]
            with tf.control_dependencies(arrived):
                wait_sec += tf.timestamp() - asked
            metrics, finite = self._step(
                batch, step + done, examples + done * tf.cast(global_batch, tf.int64), global_batch
            )
            return done + 1, metrics, finite, wait_sec

        return tf.while_loop(
            lambda done, metrics, finite, wait_sec: (done < num_steps) & finite,
            body,
            (
                tf.constant(0, tf.int64),
                tf.zeros([0], self._dtype),
                tf.constant(True),
                tf.constant(0.0, tf.float64),
            ),
            shape_invariants=tuple(tf.TensorShape(shape) for shape in ([], [None], [], [])),
        )

    def _step(self, batch, step, examples, global_batch):
        """One step on every replica (in cross-replica context)."""
        rates = {
            name: tf.cast(self._learning_rate(settings, examples, global_batch), self._dtype)
            for name, settings in self._task.optimizers.items()
        }

        def run(pattern: int):
            per_replica = self._strategy.run(
                tf.autograph.experimental.do_not_convert(self._replica_step),
                args=(batch, step, examples, global_batch, rates, pattern),
            )
            # Everything returned is the same on every replica.
            return tf.nest.map_structure(
                lambda value: self._strategy.experimental_local_results(value)[0], per_replica
            )

        if len(self._patterns) == 1:
            return run(0)
        pattern = tf.gather(tf.constant(self._pattern_of_step), step % self._period)
        # The choice is made outside the replicas, which may not communicate inside a condition.
        return tf.switch_case(pattern, [lambda i=i: run(i) for i in range(len(self._patterns))])

    def _replica_step(self, batch, step, examples, global_batch, rates, pattern: int):
        """One step on one replica: the whole training algorithm."""
        self.traces += 1
        rows = replica_rows(global_batch)
        batch = tf.nest.map_structure(lambda x: self._prepare(x, rows), batch)
        key = tf.random.experimental.stateless_fold_in(_base_key(self._seed), step)
        networks = _Networks(self._state.networks)
        view = Step(
            networks=networks,
            batch=batch,
            outputs={},
            state=self._state.task_state,
            step=step,
            examples=examples,
            seeds=Seeds(key=key, global_batch=global_batch, own=rows.own),
            gather=rows.gather,
            own=rows.own,
        )
        metrics, finite = {}, tf.constant(True)
        with weighted_examples(rows.weights if rows.replicas > 1 else None):
            forward_tape = tf.GradientTape(persistent=True)
            self._reseed(key, 0)
            with forward_tape:
                view = dataclasses.replace(view, outputs=self._task.forward(view))
            used_in_forward = frozenset(networks.used)
            for index, phase in enumerate(self._patterns[pattern]):
                shared = used_in_forward & set(phase.updates)
                tape = forward_tape if shared else tf.GradientTape(persistent=True)
                self._reseed(key, index + 1)
                gradients, losses = self._gradients(phase, view, tape, rows)
                rate = rates[phase.optimizer]
                phase_metrics, ok = self._update(phase, gradients, losses, rate)
                metrics |= phase_metrics
                finite &= ok
        self._metric_names[pattern] = list(metrics)
        return tf.stack(list(metrics.values())), finite

    def _gradients(self, phase: Phase, view: Step, tape: tf.GradientTape, rows: ReplicaRows):
        """Gradients of (sum of losses / global batch) on this replica, and the losses themselves."""
        with tape:
            losses, totals = {}, {}
            for name, term in phase.loss(view).items():
                value, reaches = term, phase.updates
                if isinstance(term, Term):
                    value, reaches = term.value, term.reaches
                    _check_reaches(phase, name, reaches)
                losses[name] = self._mean_over_global_batch(value, rows)
                totals[reaches] = totals.get(reaches, 0.0) + losses[name]
        variables = {name: view.networks[name].trainable_variables for name in phase.updates}
        gradients = {name: [None] * len(variables[name]) for name in phase.updates}
        for reaches, total in totals.items():  # one backward pass for all networks it reaches
            sources = {name: [v.value for v in variables[name]] for name in reaches}
            for name, new in tape.gradient(total, sources).items():
                gradients[name] = _add(gradients[name], new)
        for name in phase.updates:
            if all(gradient is None for gradient in gradients[name]):
                raise ConfigurationError(
                    f"phase {phase.name!r} updates {name!r}, but none of its losses depends on that "
                    "network; correct the loss or the phase's `updates`"
                )
            gradients[name] = [
                tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient
                for gradient, variable in zip(gradients[name], variables[name], strict=True)
            ]
        return gradients, losses

    def _update(self, phase: Phase, gradients: Mapping[str, Sequence], losses: Mapping, rate):
        """All-reduce, check, apply and average; returns the phase's metrics and whether all is finite."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            gradients, losses = context.all_reduce(tf.distribute.ReduceOp.SUM, (gradients, losses))
        flat = tf.nest.flatten(gradients)
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in flat]))
        # The sums are the same on every replica, so every replica decides alike.
        finite = tf.reduce_all(tf.math.is_finite(tf.stack([norm, *losses.values()])))

        def apply():
            optimizer = self._state.optimizers[phase.optimizer]
            for name, network_gradients in gradients.items():
                network = self._state.networks[name]
                optimizer.apply(name, network.trainable_variables, network_gradients, rate)
                if phase.ema_decay:
                    _average(self._state.averaged[name], network, phase.ema_decay)
            return tf.constant(True)

        finite = tf.cond(finite, apply, lambda: tf.constant(False))
        metrics = {f"loss/{phase.name}/{name}": value for name, value in losses.items()}
        metrics[f"grad_norm/{phase.name}"] = tf.cast(norm, self._dtype)
        metrics[f"learning_rate/{phase.name}"] = rate
        return metrics, finite

    def _mean_over_global_batch(self, value: tf.Tensor, rows: ReplicaRows) -> tf.Tensor:
        """This replica's part of the mean over the global batch; `value` is [B] or a scalar."""
        if value.shape.rank not in (0, 1):
            raise ConfigurationError(
                f"a loss term has shape {value.shape}; return one value an example, [B], or a scalar"
            )
        value = tf.broadcast_to(tf.cast(value, self._dtype), tf.shape(rows.weights))  # [B]
        if rows.replicas > 1:
            value = tf.where(rows.weights > 0, value, 0)
        return tf.reduce_sum(value) / tf.cast(rows.global_batch, self._dtype)

    def _prepare(self, values: tf.Tensor, rows: ReplicaRows) -> tf.Tensor:
        values = rows.pad(values) if rows.replicas > 1 else values  # [B, ...]
        return tf.cast(values, self._dtype) if values.dtype.is_floating else values

    def _reseed(self, key: tf.Tensor, part: int) -> None:
        """Sets the seed states of Keras's random layers: new each step, different on each replica."""
        context = tf.distribute.get_replica_context()
        replica_key = tf.random.experimental.stateless_fold_in(key, context.replica_id_in_sync_group)
        generators = [
            layer.seed_generator
            for network in self._state.networks.values()
            for layer in network._flatten_layers()  # Keras has no public walk over nested layers
            if hasattr(layer, "seed_generator")
        ]
        for index, generator in enumerate(generators):
            seed = tf.random.experimental.stateless_fold_in(replica_key, 1000 * part + index)
            state = generator.state.value
            state.assign(tf.cast(seed, state.dtype))


class _Networks(Mapping):
    """Networks by name that remember which of them were asked for."""

    def __init__(self, networks: Mapping[str, keras.Model]):
        self._networks = networks
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> keras.Model:
        if name in self._networks:
            self.used.add(name)
        return self._networks[name]

    def __iter__(self):
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


def _base_key(seed: int) -> tf.Tensor:
    """int32 [2] from a seed of any size."""
    return tf.constant(np.random.SeedSequence(seed).generate_state(2).astype(np.int32))


def _check_reaches(phase: Phase, term: str, reaches: Sequence[str]) -> None:
    if not set(reaches) <= set(phase.updates):
        raise ConfigurationError(
            f"phase {phase.name!r}: its term {term!r} reaches {', '.join(reaches)}, but the phase updates "
            f"{', '.join(phase.updates)} only; correct one of them"
        )


def _add(left: Sequence, right: Sequence) -> list:
    """Element by element; None counts as zero."""
    return [b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)]


def _average(averaged: keras.Model, network: keras.Model, decay: float) -> None:
    """Moves the average towards the network: trainable weights by (1 - decay), all others fully."""
    trainable = {id(weight) for weight in network.trainable_weights}
    for average, weight in zip(averaged.weights, network.weights, strict=True):
        share = 1.0 - decay if id(weight) in trainable else 1.0
        average.value.assign_add(
            tf.cast(share, average.dtype) * (weight.value.read_value() - average.value.read_value())
        )
