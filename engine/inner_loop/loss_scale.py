"""Dynamic loss scaling: keeps gradients computed in float16 within its range.

float16 holds magnitudes from 6e-8 to 65504. So with PRECISION = "float16" a phase's loss is multiplied by
a scale before it is differentiated (Micikevicius et al., arXiv 1710.03740), and its gradients, float32 like
the variables, are divided by it at once, on each replica, before anything is added up. The all-reduce, the
noise scale, clipping and Adam see unscaled gradients. Scales are powers of two, so that dividing does not
round.

The scale adapts: it is halved in a step whose gradients are not finite, in which the phase is not updated,
and doubled after 2000 updates in a row. (PyTorch's `GradScaler` and Keras's `LossScaleOptimizer` have the
same numbers.) The check uses the sum of gradients over all replicas, so every replica makes the same
decision; Keras's check uses the first replica only.

Each phase has its own scale, even if phases share an optimizer: an adversarial loss and a gradient penalty
are of different sizes, and an overflow of one says nothing about the other.

Losses that contain a gradient (R1, WGAN-GP) take it unscaled: for a patchgan of 64 filters at 128x128, whose
gradients by pixel are 1e-5, the norm is right to 2e-4 in float16, and no better when scaled by 256 to 32768
(measured).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

INITIAL = 2.0**15
SMALLEST = 1.0
LARGEST = 2.0**100
"""Far above any useful scale; keeps the scale itself finite where all gradients are 0."""

UPDATES_TO_DOUBLE = 2000


def is_needed() -> bool:
    """Whether networks that are built now compute in float16."""
    return keras.config.dtype_policy().compute_dtype == "float16"


class LossScale:
    """The scale of one phase.

    Create it under the strategy's scope. Call its methods in replica context, with the same arguments on
    every replica, so that the replicas' copies stay equal; no method communicates.
    """

    def __init__(self) -> None:
        self._scale = tf.Variable(INITIAL, dtype=tf.float32, trainable=False, name="scale")
        self._in_a_row = tf.Variable(0, dtype=tf.int64, trainable=False, name="updates_in_a_row")
        self._overflows = tf.Variable(0, dtype=tf.int64, trainable=False, name="overflows")

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """Everything a checkpoint needs, by a stable name."""
        return {
            "scale": self._scale,
            "updates_in_a_row": self._in_a_row,
            "overflows": self._overflows,
        }

    @property
    def value(self) -> tf.Tensor:
        """The factor on the phase's loss: float32 scalar."""
        return self._scale.read_value()

    @property
    def overflows(self) -> tf.Tensor:
        """Steps of the whole run in which the phase was skipped because of an overflow: int64 scalar."""
        return self._overflows.read_value()

    def unscale(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Divides gradients of the scaled loss by the scale; NaN and infinity stay."""
        return [g if g is None else g / tf.cast(self.value, g.dtype) for g in gradients]

    def after_update(self) -> None:
        """Counts an update, and doubles the scale after enough of them in a row."""
        in_a_row = self._in_a_row.read_value() + 1
        doubles = in_a_row >= UPDATES_TO_DOUBLE
        scale = self.value
        self._scale.assign(tf.where(doubles, tf.minimum(2.0 * scale, LARGEST), scale))
        self._in_a_row.assign(tf.where(doubles, tf.zeros_like(in_a_row), in_a_row))

    def after_not_finite(self, *, losses_finite: tf.Tensor) -> tf.Tensor:
        """Counts a step in which the phase could not be updated; halves the scale if that may help.

        Args:
          losses_finite: whether the losses were finite. If not, the scale is not to blame.

        Returns:
          Whether it was an overflow: bool scalar. False if the losses were not finite, or if the scale is
          already the smallest.
        """
        scale = self.value
        overflowed = losses_finite & (scale > SMALLEST)
        self._scale.assign(tf.where(overflowed, tf.maximum(0.5 * scale, SMALLEST), scale))
        self._in_a_row.assign(tf.zeros([], tf.int64))
        self._overflows.assign_add(tf.cast(overflowed, tf.int64))
        return overflowed
