"""The arguments of the compiled training loop: what may change without a new trace, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import WarmupState
from engine.inner_loop.replica_step import StepInputs


class LoopInputs(NamedTuple):
    """Arguments of the compiled loop.

    Attributes:
      start: inputs of the first step.
      warmup: of the learning rates.
      plateau_factors: on the learning rate, by optimizer.
      accumulation: micro-batches in a step; None if each step is one micro-batch.
    """

    start: StepInputs
    warmup: WarmupState
    plateau_factors: dict[str, tf.Tensor]
    accumulation: tf.Tensor | int | None


def traced_inputs(
    *,
    step: int,
    examples: int,
    layout: BatchLayout,
    warmup: WarmupState,
    plateau_factors: Mapping[str, float],
    static_sizes: bool,
) -> LoopInputs:
    """Arguments of the compiled loop: tensors for values that may change without a new trace.

    The loop is traced again for each value of a Python int.

    Args:
      step: steps done before.
      examples: examples drawn before.
      layout: of the batches.
      warmup: of the learning rates.
      plateau_factors: on the learning rate, for every optimizer.
      static_sizes: whether shapes have to be known while tracing; sizes are then Python ints.
    """
    size = int if static_sizes else tf.constant
    return LoopInputs(
        start=StepInputs(
            step=tf.constant(step, tf.int64),
            examples=tf.constant(examples, tf.int64),
            global_batch=size(layout.global_batch),
            micro_batch=size(layout.micro_batch) if layout.is_padded else None,
        ),
        warmup=WarmupState(
            previous_growth=tf.constant(warmup.previous_growth, tf.float64),
            changed_at_examples=tf.constant(warmup.changed_at_examples, tf.int64),
        ),
        plateau_factors={name: tf.constant(factor, tf.float64) for name, factor in plateau_factors.items()},
        accumulation=size(layout.accumulation) if layout.accumulation > 1 else None,
    )
