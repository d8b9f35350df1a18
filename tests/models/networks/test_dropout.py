"""Dropout that an evaluation switches on: Keras's in training, one mask for each example outside."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.replica_context import set_dropout_keys
from models.networks.dropout import Dropout


def keys_of(positions):
    return tf.constant([[20, position] for position in positions], tf.int32)


def network(layer):
    image = keras.Input((None, None, 3))
    return keras.Model(image, layer(0.25, name="dropout")(image))


def test_training_has_the_bits_and_variables_of_keras():
    ones = tf.ones([2, 8, 8, 3])
    outputs, names = [], []
    for layer in (keras.layers.Dropout, Dropout):
        keras.backend.clear_session()  # names are numbered
        random.seed(3)
        keras.utils.set_random_seed(3)
        model = network(layer)
        outputs.append(model(ones, training=True).numpy())
        names.append([variable.path for variable in model.variables])
        np.testing.assert_array_equal(model(ones), ones)
    np.testing.assert_array_equal(*outputs)
    assert names[0] == names[1]


def test_a_mask_follows_from_the_example_alone():
    model, ones = network(Dropout), tf.ones([5, 32, 32, 3])
    with set_dropout_keys(keys_of(range(5))):
        whole = model(ones).numpy()
    with set_dropout_keys(keys_of([3, 1])):
        np.testing.assert_array_equal(model(ones[:2]), whole[[3, 1]])
        twice = model(ones[:4]).numpy()  # two batches that a task has concatenated
    np.testing.assert_array_equal(twice, whole[[3, 1, 3, 1]])
    assert set(np.unique(whole)) == {0, np.float32(1 / 0.75)}
    kept = whole > 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    # Independent masks agree where both keep or both drop: 0.75^2 + 0.25^2.
    assert (kept[0] == kept[1]).mean() == pytest.approx(0.625, abs=0.05)
    other = Dropout(0.25, name="other")
    with set_dropout_keys(keys_of(range(5))):
        assert ((other(ones).numpy() > 0) == kept).mean() == pytest.approx(0.625, abs=0.03)
