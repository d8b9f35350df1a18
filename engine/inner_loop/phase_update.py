"""The update of one phase from its gradients: all-reduce, check, clip and apply, average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from engine.batching.noise_scale import small_batch_square_norm
from engine.batching.scaling_rules import BatchScaling, Hyperparameters, WarmupState
from engine.inner_loop.batch_rows import ReplicaRows
from engine.inner_loop.gradients import Gradients
from engine.inner_loop.loss_scale import LossScale
from engine.inner_loop.train_state import TrainState
from engine.replica_context import sum_over_replicas
from engine.task import Phase, Task

APPLIED, OVERFLOWED, NOT_FINITE = 0, 1, 2
"""Outcomes of a phase. The outcome of a step is the largest of its phases.

OVERFLOWED: only the scaled gradients were not finite, and the scale was halved; see
`engine.inner_loop.loss_scale`.
"""


class PhaseSettings(NamedTuple):
    """Settings of the update of one phase in one step.

    Attributes:
      hyperparameters: of its optimizer.
      ema_decay: decay of the moving average, float64 scalar; None if the phase keeps none.
    """

    hyperparameters: Hyperparameters
    ema_decay: tf.Tensor | None


class PhaseSums(NamedTuple):
    """A replica's part of the sums of a phase over all examples of a step.

    Attributes:
      gradients: of the mean loss over the global batch, by network.
      losses: the same mean, by term.
      noise: [2], the sum of `small_batch_square_norm` and the number of small batches, for the noise scale
        (see `engine.batching.noise_scale`); () if it is not measured.
    """

    gradients: Gradients
    losses: Mapping[str, tf.Tensor]
    noise: tf.Tensor


def phase_settings(
    task: Task,
    scaling: BatchScaling,
    *,
    examples: tf.Tensor,
    global_batch: tf.Tensor | int,
    warmup: WarmupState,
    plateau_factors: Mapping[str, tf.Tensor],
) -> dict[str, PhaseSettings]:
    """The settings of every phase in one step.

    Args:
      task: its phases and optimizers.
      scaling: gives the hyper-parameters at a position and batch size.
      examples: int64 scalar, drawn before this step.
      global_batch: examples of this step.
      warmup: the last change of the batch.
      plateau_factors: on the learning rate, by optimizer.
    """
    growth = scaling.growth(examples=examples, global_batch=global_batch, warmup=warmup)
    hyperparameters = {
        name: scaling.hyperparameters(
            settings,
            examples=examples,
            global_batch=global_batch,
            growth=growth,
            plateau_factor=plateau_factors[name],
        )
        for name, settings in task.optimizers.items()
    }
    return {
        phase.name: PhaseSettings(
            hyperparameters[phase.optimizer],
            scaling.ema_decay(phase.ema_decay, global_batch) if phase.ema_decay else None,
        )
        for phase in task.phases()
    }


def phase_sums(
    gradients: Gradients, losses: Mapping[str, tf.Tensor], rows: ReplicaRows, *, measure_noise: bool
) -> PhaseSums:
    """The sums over one micro-batch on this replica."""
    if not measure_noise:
        return PhaseSums(gradients, losses, ())
    square_norm = small_batch_square_norm(
        tf.nest.flatten(gradients), examples=rows.count, global_batch=rows.global_batch
    )
    # In Keras's floatx, like everything else in the all-reduce.
    noise = [tf.cast(value, keras.config.floatx()) for value in (square_norm, rows.count > 0)]
    return PhaseSums(gradients, losses, tf.stack(noise))


def update(
    phase: Phase,
    sums: PhaseSums,
    settings: PhaseSettings,
    *,
    train_state: TrainState,
    global_batch: tf.Tensor | int,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Runs the phase's one all-reduce, then its update (in replica context).

    Args:
      phase: is updated.
      sums: of this replica.
      settings: of the update.
      train_state: the variables.
      global_batch: examples of the step.

    Returns:
      The phase's metrics, and its outcome: int32, one of APPLIED, OVERFLOWED, NOT_FINITE. Unless it is
      APPLIED, networks, moments and averages are unchanged.
    """
    sums = sum_over_replicas(sums)
    norm = _norm(sums.gradients)
    # The sums are the same on every replica, so every replica makes the same decision.
    is_finite = _is_finite([norm, *sums.losses.values()])
    loss_scale = train_state.loss_scales.get(phase.name)
    metrics = _metrics(phase, sums, norm, settings, loss_scale)
    outcome = tf.cond(
        is_finite,
        lambda: _apply(phase, sums, norm, settings, train_state=train_state, global_batch=global_batch),
        lambda: _skip(sums, loss_scale),
    )
    if loss_scale is not None:
        metrics[f"overflows/{phase.name}"] = loss_scale.overflows  # including this step
    dtype = keras.config.floatx()
    return {name: tf.cast(value, dtype) for name, value in metrics.items()}, outcome


def _norm(gradients: Gradients) -> tf.Tensor:
    """Euclidean norm over all gradients of the phase."""
    # l2_loss is half of the sum of squares, without a tensor of the squares.
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(g) for g in tf.nest.flatten(gradients)]))


def _is_finite(values: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.stack(values)))


def _metrics(
    phase: Phase, sums: PhaseSums, norm: tf.Tensor, settings: PhaseSettings, loss_scale: LossScale | None
) -> dict[str, tf.Tensor]:
    """The metrics of the phase, with the loss scale of this step."""
    metrics = {f"loss/{phase.name}/{name}": value for name, value in sums.losses.items()}
    metrics[f"grad_norm/{phase.name}"] = norm
    metrics[f"learning_rate/{phase.name}"] = settings.hyperparameters.learning_rate
    if loss_scale is not None:
        metrics[f"loss_scale/{phase.name}"] = loss_scale.value
    return metrics


def _apply(
    phase: Phase,
    sums: PhaseSums,
    norm: tf.Tensor,
    settings: PhaseSettings,
    *,
    train_state: TrainState,
    global_batch: tf.Tensor | int,
) -> tf.Tensor:
    """Updates networks, moments, averages and the noise scale; returns APPLIED."""
    optimizer = train_state.optimizers[phase.optimizer]
    for name, gradients in clipped(sums.gradients, norm, optimizer.settings.clip_norm).items():
        network = train_state.networks[name]
        optimizer.apply(name, network.trainable_variables, gradients, settings.hyperparameters)
        if settings.ema_decay is not None:
            _average(train_state.averaged[name], network, settings.ema_decay)
    if phase.name in train_state.noise_scales:
        train_state.noise_scales[phase.name].update(
            small_batch_square_norms=sums.noise[0],
            small_batches=sums.noise[1],
            gradients=sums.gradients,
            global_batch=global_batch,
        )
    if phase.name in train_state.loss_scales:
        train_state.loss_scales[phase.name].after_update()
    return tf.constant(APPLIED)


def _skip(sums: PhaseSums, loss_scale: LossScale | None) -> tf.Tensor:
    """Updates the loss scale only. Returns OVERFLOWED if the scale was too high, otherwise NOT_FINITE."""
    if loss_scale is None:
        return tf.constant(NOT_FINITE)
    overflowed = loss_scale.after_not_finite(losses_finite=_is_finite(list(sums.losses.values())))
    return tf.where(overflowed, OVERFLOWED, NOT_FINITE)


def clipped(gradients: Gradients, norm: tf.Tensor, clip_norm: float | None) -> Gradients:
    """Clips gradients by their common norm to at most `clip_norm` (Pascanu et al., arXiv 1211.5063).

    Args:
      gradients: after the all-reduce, so that clipping does not depend on the number of replicas.
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
