"""Two batches through one network at once, where that gives what two passes give."""

import tensorflow as tf


def pass_both(network, first, second):
    """A network's two outputs for two batches of equal shape, [B, ...] each, in training.

    In one pass where that is the same: not where a pass moves something, such as spectral vectors or the
    statistics of batch norm, of which each batch has its own.
    """
    if network.non_trainable_weights:
        return [network(first, training=True), network(second, training=True)]
    return tf.split(network(tf.concat([first, second], axis=0), training=True), 2)  # of [2 B, ...]
