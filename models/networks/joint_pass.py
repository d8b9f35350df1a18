"""Passing two batches through one network at once."""

from __future__ import annotations

import keras
import tensorflow as tf


def pass_both(network: keras.Model, first: tf.Tensor, second: tf.Tensor) -> list[tf.Tensor]:
    """Computes a network's outputs for two batches in training, in one pass if that gives the same.

    Args:
      network: maps [B, ...] to [B, ...].
      first: a batch, [B, ...].
      second: another of the same shape.

    Returns:
      The two outputs, [B, ...] each.
    """
    # Each pass moves spectral vectors and moving statistics, and has its own batch statistics.
    if network.non_trainable_weights:
        return [network(first, training=True), network(second, training=True)]
    return tf.split(network(tf.concat([first, second], axis=0), training=True), 2)  # of [2 B, ...]
