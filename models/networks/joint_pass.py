"""Passing two batches through one network at once."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from engine.replica_context import set_batches_in_pass


def pass_both(network: keras.Model, first: Any, second: Any) -> list[Any]:
    """Computes a network's outputs for two batches in training, in one pass if that gives the same.

    Args:
      network: maps [B, ...] to [B, ...].
      first: a batch: [B, ...], or a structure of such tensors. Moving statistics move with it first.
      second: another of the same shapes.

    Returns:
      The two outputs, of [B, ...] each.
    """
    if not _keeps_batches_apart(network):
        return [network(first, training=True), network(second, training=True)]
    both = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), first, second)  # [2 B, ...]
    with set_batches_in_pass(2):
        outputs = network(both, training=True)  # [2 B, ...]
    halves = [tf.split(output, 2) for output in tf.nest.flatten(outputs)]
    return [tf.nest.pack_sequence_as(outputs, half) for half in zip(*halves, strict=True)]


def _keeps_batches_apart(network: keras.Model) -> bool:
    """Whether what a pass moves is moved for each batch, as by batch norm; a spectral vector is not."""
    moved = {id(weight) for weight in network.non_trainable_weights}
    for layer in network._flatten_layers():  # noqa: SLF001 (Keras has no public walk over nested layers)
        if getattr(layer, "keeps_batches_apart", False):
            moved -= {id(weight) for weight in layer.weights}
    return not moved
