"""Gradients of one phase on one replica: sum of its losses over the global batch, by network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.inner_loop.batch_rows import ReplicaRows
from engine.inner_loop.loss_scale import LossScale
from engine.task import Phase, Step, Term

Gradients = Mapping[str, Sequence[tf.Tensor]]
"""By network, in the order of its trainable variables."""


def phase_gradients(
    phase: Phase,
    view: Step,
    tape: tf.GradientTape,
    rows: ReplicaRows,
    *,
    loss_scale: LossScale | None,
) -> tuple[Gradients, dict[str, tf.Tensor]]:
    """Gradients of (sum of losses / global batch) on this replica's rows, and the losses themselves.

    Args:
      view: what the loss is given.
      tape: persistent; one that recorded `forward` if the phase differentiates through it.
      loss_scale: what the losses are multiplied by while they are differentiated, in float16. It is out of
        both results. A loss that contains a gradient (R1) contains it as it is: only the differentiation
        of the loss itself is scaled.

    Raises:
      ConfigurationError: a loss of the wrong shape, or one that does not reach a network of the phase.
    """
    with tape:
        losses, totals = {}, {}
        for name, term in phase.loss(view).items():
            value, reaches = term, phase.updates
            if isinstance(term, Term):
                value, reaches = term.value, term.reaches
                _check_reaches(phase, name, reaches)
            losses[name] = _mean_over_global_batch(value, rows)
            totals[reaches] = totals.get(reaches, 0.0) + losses[name]
        if loss_scale is not None:
            totals = {reaches: total * loss_scale.value for reaches, total in totals.items()}
    variables = {name: view.networks[name].trainable_variables for name in phase.updates}
    gradients = {name: [None] * len(variables[name]) for name in phase.updates}
    for reaches, total in totals.items():  # one backward pass for all networks it reaches
        sources = {name: [v.value for v in variables[name]] for name in reaches}
        for name, new in tape.gradient(total, sources).items():
            if loss_scale is not None:
                new = loss_scale.unscale(new)
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


def _mean_over_global_batch(value: tf.Tensor, rows: ReplicaRows) -> tf.Tensor:
    """This replica's part of the mean over the global batch; `value` is [B] or a scalar."""
    if value.shape.rank not in (0, 1):
        raise ConfigurationError(
            f"a loss term has shape {value.shape}; return one value an example, [B], or a scalar"
        )
    dtype = keras.config.floatx()
    value = tf.broadcast_to(tf.cast(value, dtype), tf.shape(rows.weights))  # [B]
    if rows.is_padded:
        value = tf.where(rows.weights > 0, value, 0)
    return tf.reduce_sum(value) / tf.cast(rows.global_batch, dtype)


def _check_reaches(phase: Phase, term: str, reaches: Sequence[str]) -> None:
    if not set(reaches) <= set(phase.updates):
        raise ConfigurationError(
            f"phase {phase.name!r}: its term {term!r} reaches {', '.join(reaches)}, but the phase updates "
            f"{', '.join(phase.updates)} only; correct one of them"
        )


def _add(left: Sequence, right: Sequence) -> list:
    """Element by element; None counts as zero."""
    return [b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)]
