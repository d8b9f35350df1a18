"""Outputs of the forward pass that a step in several micro-batches keeps for later phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from engine.errors import ConfigurationError

Outputs = Mapping[str, Any]
"""Outputs of the forward pass by name: tensors [rows, ...], or nested structures of them."""


class GrowingOutputs:
    """Joins outputs by concatenation: one trace for any number of micro-batches."""

    def start(self, outputs: Outputs) -> Outputs:
        """The outputs of micro-batch 0."""
        return outputs

    def append(self, so_far: Outputs, new: Outputs, micro: tf.Tensor) -> Outputs:
        """Appends the outputs of micro-batch number `micro`."""
        del micro
        return tf.nest.map_structure(lambda a, b: tf.concat([a, b], axis=0), so_far, new)

    def loop_shape(self, tensor: tf.Tensor) -> tf.TensorShape:
        """The part of a tensor's shape that is the same in all iterations of the loop."""
        return tf.TensorShape([None, *tensor.shape[1:]])


class PreallocatedOutputs:
    """Writes outputs into rows of zeros that are allocated at the start, so shapes are static."""

    def __init__(self, accumulation: int):
        self._accumulation = accumulation

    def start(self, outputs: Outputs) -> Outputs:
        """The outputs of micro-batch 0, padded with rows for all others."""

        def enlarge(x: tf.Tensor) -> tf.Tensor:
            missing = (self._accumulation - 1) * x.shape[0]
            return tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))

        return tf.nest.map_structure(enlarge, outputs)

    def append(self, so_far: Outputs, new: Outputs, micro: tf.Tensor) -> Outputs:
        """Writes the outputs of micro-batch number `micro` into its rows."""

        def write(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            indices = micro * b.shape[0] + tf.range(b.shape[0])
            return tf.tensor_scatter_nd_update(a, indices[:, tf.newaxis], b)

        return tf.nest.map_structure(write, so_far, new)

    def loop_shape(self, tensor: tf.Tensor) -> tf.TensorShape:
        """The part of a tensor's shape that is the same in all iterations of the loop: all of it."""
        return tensor.shape


def check_outputs(outputs: Outputs) -> Outputs:
    """Returns the outputs.

    Raises:
      ConfigurationError: one is a scalar, which cannot be joined over micro-batches.
    """
    for name, value in outputs.items():
        if any(tensor.shape.rank == 0 for tensor in tf.nest.flatten(value)):
            raise ConfigurationError(
                f"forward's output {name!r} is a scalar; under accumulation (LARGEST_MICRO_BATCH) each "
                "output has one row per example, [B, ...]"
            )
    return outputs
