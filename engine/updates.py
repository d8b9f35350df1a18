"""What one phase does to the variables once its gradients are there: reduce, check, apply, average."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from engine.gradients import Gradients
from engine.noise_scale import share_square
from engine.rows import ReplicaRows
from engine.scaling import Hyperparameters
from engine.state import TrainState
from engine.task import Phase


class PhaseSums(NamedTuple):
    """A replica's part of what a phase adds up over all examples of a step.

    Args:
      gradients: of the mean loss over the global batch, by network.
      losses: the same mean, by term.
      noise: [sum of share squares, shares] for the noise scale (see `engine.noise_scale`), or ().
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
      The phase's metrics, and whether all losses and gradients are finite; if not, nothing is changed.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
    flat = tf.nest.flatten(sums.gradients)
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in flat]))
    # The sums are the same on every replica, so every replica decides alike.
    finite = tf.reduce_all(tf.math.is_finite(tf.stack([norm, *sums.losses.values()])))

    def apply():
        optimizer = train_state.optimizers[phase.optimizer]
        for name, gradients in sums.gradients.items():
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
        return tf.constant(True)

    finite = tf.cond(finite, apply, lambda: tf.constant(False))
    dtype = keras.config.floatx()
    metrics = {f"loss/{phase.name}/{name}": value for name, value in sums.losses.items()}
    metrics[f"grad_norm/{phase.name}"] = tf.cast(norm, dtype)
    metrics[f"learning_rate/{phase.name}"] = tf.cast(hyperparameters.learning_rate, dtype)
    return metrics, finite


def _average(averaged: keras.Model, network: keras.Model, decay: tf.Tensor) -> None:
    """Moves the average towards the network: trainable weights by (1 - decay), all others fully."""
    trainable = {id(weight) for weight in network.trainable_weights}
    for average, weight in zip(averaged.weights, network.weights, strict=True):
        share = 1.0 - decay if id(weight) in trainable else 1.0
        average.value.assign_add(
            tf.cast(share, average.dtype) * (weight.value.read_value() - average.value.read_value())
        )
