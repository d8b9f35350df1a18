"""Gradients of one phase on one replica: of the sum of its losses over the global batch, by network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.inner_loop.batch_rows import ReplicaRows
from engine.inner_loop.loss_scale import LossScale
from engine.task import Phase, Step, Term

Gradients = Mapping[str, Sequence[tf.Tensor]]
"""Gradients by network, in the order of its trainable variables."""


def phase_gradients(
    phase: Phase,
    view: Step,
    tape: tf.GradientTape,
    rows: ReplicaRows,
    *,
    loss_scale: LossScale | None,
    compiled: Callable[[Callable[[], Any]], Any],
) -> tuple[dict[str, list[tf.Tensor]], dict[str, tf.Tensor]]:
    """Gradients of (sum of losses / global batch) on this replica's rows, and the losses themselves.

    Args:
      phase: its losses are differentiated.
      view: the argument of the losses.
      tape: persistent; the one that recorded `forward` if the phase differentiates through it.
      rows: this replica's rows, which `view` shows.
      loss_scale: in float16, multiplies the losses for differentiation; neither result contains it. A
        gradient inside a loss (R1) is not scaled, only the differentiation of the loss itself.
      compiled: of `engine.inner_loop.compiled_parts`; runs the computation of the losses.

    Raises:
      ConfigurationError: a loss has the wrong shape, or a network of the phase depends on no loss.
    """
    with tape:
        losses, totals = compiled(lambda: _losses(phase, view, rows))
        if loss_scale is not None:
            totals = {reaches: total * loss_scale.value for reaches, total in totals.items()}
    variables = {name: view.networks[name].trainable_variables for name in phase.updates}
    partial: dict[str, list[tf.Tensor | None]] = {name: [None] * len(variables[name]) for name in variables}
    for reaches, total in totals.items():  # one backward pass for all its networks
        sources = {name: [v.value for v in variables[name]] for name in reaches}
        for name, new in tape.gradient(total, sources).items():
            if loss_scale is not None:
                new = loss_scale.unscale(new)
            partial[name] = _add(partial[name], new)
    for name in phase.updates:
        if all(gradient is None for gradient in partial[name]):
            raise ConfigurationError(
                f"phase {phase.name!r} updates {name!r}, but none of its losses depends on that "
                "network; correct the loss or the phase's `updates`"
            )
    gradients = {
        name: [
            tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient
            for gradient, variable in zip(partial[name], variables[name], strict=True)
        ]
        for name in phase.updates
    }
    return gradients, losses


def _losses(
    phase: Phase, view: Step, rows: ReplicaRows
) -> tuple[dict[str, tf.Tensor], dict[tuple[str, ...], tf.Tensor]]:
    """Each term's part of the mean over the global batch, and their totals by the networks they reach."""
    losses: dict[str, tf.Tensor] = {}
    totals: dict[tuple[str, ...], tf.Tensor] = {}
    for name, term in phase.loss(view).items():
        value, reaches = term, phase.updates
        if isinstance(term, Term):
            value, reaches = term.value, term.reaches
            _check_reaches(phase, name, reaches)
        losses[name] = _mean_over_global_batch(value, rows)
        totals[reaches] = totals.get(reaches, 0.0) + losses[name]
    return losses, totals


def _mean_over_global_batch(value: tf.Tensor, rows: ReplicaRows) -> tf.Tensor:
    """This replica's part of the mean over the global batch; `value` is [B] or a scalar."""
    if value.shape.rank not in (0, 1):
        raise ConfigurationError(
            f"a loss term has shape {value.shape}; return one value per example, [B], or a scalar"
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


def _add(left: Sequence[tf.Tensor | None], right: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Element by element; None counts as zero."""
    return [b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True)]
