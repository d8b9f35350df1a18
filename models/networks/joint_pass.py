"""Passing two batches through one network at once."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from engine.replica_context import replica_count, set_batches_in_pass


def pass_both(network: keras.Model, first: Any, second: Any) -> list[Any]:
    """Computes a network's outputs for two batches in training, in one pass if that gives the same sooner.

    Args:
      network: maps [B, ...] to [B, ...].
      first: a batch: [B, ...], or a structure of such tensors. Moving statistics move with it first.
      second: another of the same shapes.

    Returns:
      The two outputs, of [B, ...] each.
    """
    if not _is_worth_joining(network):
        return [network(first, training=True), network(second, training=True)]
    both = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), first, second)  # [2 B, ...]
    with set_batches_in_pass(2):
        outputs = network(both, training=True)  # [2 B, ...]
    halves = [tf.split(output, 2) for output in tf.nest.flatten(outputs)]
    return [tf.nest.pack_sequence_as(outputs, half) for half in zip(*halves, strict=True)]


def _is_worth_joining(network: keras.Model) -> bool:
    if replica_count() == 1:  # separate passes through batch norm are a little faster
        return not network.non_trainable_weights
    # Batch norm moves its statistics for each batch; spectral norm moves its vector once a pass. The two
    # batches share the collectives of batch norm.
    moved = {id(weight) for weight in network.non_trainable_weights}
    for layer in network._flatten_layers():  # noqa: SLF001 (Keras has no public walk over nested layers)
        if getattr(layer, "keeps_batches_apart", False):
            moved -= {id(weight) for weight in layer.weights}
    return not moved
