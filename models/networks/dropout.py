"""Dropout that an evaluation can switch on."""

from __future__ import annotations

import zlib

import keras
import tensorflow as tf

from engine.replica_context import dropout_keys


@keras.saving.register_keras_serializable(package="gantry")
class Dropout(keras.layers.Dropout):
    """Keras's dropout, active outside training too where there are `engine.replica_context.dropout_keys`.

    The reference tests pix2pix with dropout on. The mask of an example then follows from its key and the name
    of the layer, so it is the same on any number of replicas and in each pass.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, ...] -> the same shape and dtype."""
        keys = dropout_keys()
        if training or keys is None or not self.rate:
            return super().call(inputs, training=training)
        # A task may concatenate several batches, to pass them through the network together.
        keys = tf.tile(keys, [tf.shape(inputs)[0] // tf.shape(keys)[0], 1])  # [B, 2]
        layer, shape = zlib.crc32(self.name.encode()) & 0x7FFFFFFF, tf.shape(inputs)[1:]

        def draw(key: tf.Tensor) -> tf.Tensor:
            seed = tf.random.experimental.stateless_fold_in(key, layer)
            return tf.random.stateless_uniform(shape, seed) >= self.rate

        keep = tf.map_fn(draw, keys, fn_output_signature=tf.bool)  # [B, ...]
        keep.set_shape(inputs.shape)
        return tf.where(keep, inputs / (1.0 - self.rate), tf.zeros_like(inputs))
