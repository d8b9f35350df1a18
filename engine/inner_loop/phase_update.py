"""What one phase does to the variables once its gradients are there: reduce, check, apply, average."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.batching.noise_scale import share_square
from engine.batching.scaling_rules import Hyperparameters
from engine.inner_loop.batch_rows import ReplicaRows
from engine.inner_loop.gradients import Gradients
from engine.inner_loop.train_state import TrainState
from engine.task import Phase

APPLIED, OVERFLOWED, NOT_FINITE = 0, 1, 2
"""What became of a phase; of a step, the largest of its phases'.

OVERFLOWED: only its scaled gradients were not finite, and the scale has been halved; see `engine.inner_loop.loss_scale`.
"""


class PhaseSums(NamedTuple):
    """A replica's part of what a phase adds up over all examples of a step.

    Args:
      gradients: of the mean loss over the global batch, by network.
      losses: the same mean, by term.
      noise: [sum of share squares, shares] for the noise scale (see `engine.batching.noise_scale`), or ().
    """

    gradients: Gradients
    losses: dict[str, tf.Tensor]
    noise: Any


def phase_sums(gradients: Gradients, losses: dict, rows: ReplicaRows, *, measure_noise: bool) -> PhaseSums:
    """The sums over one micro-batch on this replica."""
    if not measure_noise:
        return PhaseSums(gradients, losses, ())
    square = share_square(tf.nest.flatten(gradients), examples=rows.count, global_batch=rows.global_batch)
    # In Keras's floatx, as everything in the all-reduce.
    noise = [tf.cast(value, keras.config.floatx()) for value in (square, rows.count > 0)]
    return PhaseSums(gradients, losses, tf.stack(noise))


def update(
    phase: Phase,
    sums: PhaseSums,
    hyperparameters: Hyperparameters,
    *,
    train_state: TrainState,
    global_batch: tf.Tensor,
    ema_decay: tf.Tensor | None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The phase's one all-reduce, then its update (in replica context).

    Returns:
      The phase's metrics, and what became of it: int32, one of APPLIED, OVERFLOWED, NOT_FINITE. Unless it
      is APPLIED, networks, moments and averages are unchanged.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    flat = tf.nest.flatten(sums.gradients)
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in flat]))
    # The sums are the same on every replica, so every replica decides alike.
    finite = tf.reduce_all(tf.math.is_finite(tf.stack([norm, *sums.losses.values()])))

    optimizer = train_state.optimizers[phase.optimizer]
    loss_scale = train_state.loss_scales.get(phase.name)
    metrics = {f"loss/{phase.name}/{name}": value for name, value in sums.losses.items()}
    metrics[f"grad_norm/{phase.name}"] = norm
    metrics[f"learning_rate/{phase.name}"] = hyperparameters.learning_rate
    if loss_scale is not None:
        metrics[f"loss_scale/{phase.name}"] = loss_scale.value

    def apply():
        for name, gradients in clipped(sums.gradients, norm, optimizer.settings.clip_norm).items():
            network = train_state.networks[name]
            optimizer.apply(name, network.trainable_variables, gradients, hyperparameters)
            if ema_decay is not None:
                _average(train_state.averaged[name], network, ema_decay)
        if phase.name in train_state.noise_scales:
            train_state.noise_scales[phase.name].update(
                share_squares=sums.noise[0],
                shares=sums.noise[1],
                gradients=sums.gradients,
                global_batch=global_batch,
            )
        if loss_scale is not None:
            loss_scale.after_update()
        return tf.constant(APPLIED)

    def leave_out():
        if loss_scale is None:
            return tf.constant(NOT_FINITE)
        losses_finite = tf.reduce_all(tf.math.is_finite(tf.stack(list(sums.losses.values()))))
        overflowed = loss_scale.after_not_finite(losses_finite=losses_finite)
        return tf.where(overflowed, OVERFLOWED, NOT_FINITE)

    outcome = tf.cond(finite, apply, leave_out)
    if loss_scale is not None:
        metrics[f"overflows/{phase.name}"] = loss_scale.overflows
    dtype = keras.config.floatx()
    return {name: tf.cast(value, dtype) for name, value in metrics.items()}, outcome


def clipped(gradients: Gradients, norm: tf.Tensor, clip_norm: float | None) -> Gradients:
    """Gradients whose norm over all of them is at most `clip_norm` (Pascanu et al., arXiv 1211.5063).

    Args:
      gradients: after the all-reduce, so that what is clipped depends on no number of replicas.
      norm: their norm, finite.
      clip_norm: None clips nothing.
    """
    if clip_norm is None:
        return gradients
    factor = clip_norm / tf.maximum(norm, clip_norm)
    return {name: [factor * gradient for gradient in values] for name, values in gradients.items()}


def _average(averaged: keras.Model, network: keras.Model, decay: tf.Tensor) -> None:
    """Moves the average towards the network: trainable weights by (1 - decay), all others fully."""
    trainable = {id(weight) for weight in network.trainable_weights}
    for average, weight in zip(averaged.weights, network.weights, strict=True):
        share = 1.0 - decay if id(weight) in trainable else 1.0
        average.value.assign_add(
            tf.cast(share, average.dtype) * (weight.value.read_value() - average.value.read_value())
        )
