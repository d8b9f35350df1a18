"""Sizes of pictures that networks of a user's own do not take."""

import keras
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.inference.size_check import SizeCheck


class FixedSize:
    """A task whose network would take any size if it were built for it."""

    def check_translation(self, example):
        pass


def network(height, width):
    """A skip connection around a convolution that halves the size, which fits even sizes only."""
    image = keras.Input((height, width, 3))
    half = keras.layers.Conv2D(3, 3, strides=2, padding="same")(image)
    return keras.Model(image, keras.layers.Add()([image, keras.layers.UpSampling2D()(half)]))


def check_of(model):
    def trace(height, width):
        tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec([1, height, width, 3]))

    example = {"input": tf.TensorSpec([8, 8, 3]), "target": tf.TensorSpec([8, 8, 3])}
    return SizeCheck(FixedSize(), networks=[model], example=example, source="input", trace=trace)


def test_a_network_built_for_one_size_takes_no_other():
    sizes = check_of(network(8, 8))
    sizes.check(8, 8)
    for _ in range(2):  # a second picture too, when TensorFlow has relaxed the shapes
        with pytest.raises(ConfigurationError, match=r"trained on 8x8 .* not take 10x8 \(.*\); resize"):
            sizes.check(10, 8)


def test_a_network_that_fails_on_some_sizes_is_named_for_these_only():
    model = network(None, None)
    sizes = check_of(model)
    sizes.check(9, 8)  # nothing tells before it is tried
    compiled = tf.function(model, autograph=False, input_signature=[tf.TensorSpec([1, None, None, 3])])
    with sizes.reraise_errors(10, 8):
        compiled(tf.zeros([1, 10, 8, 3]))
    with (
        pytest.raises(ConfigurationError, match=r"take 9x8 \(.*shape.*\)") as raised,
        sizes.reraise_errors(9, 8),
    ):
        compiled(tf.zeros([1, 9, 8, 3]))
    assert "\n" not in str(raised.value) and "Graph execution" not in str(raised.value)
    with pytest.raises(tf.errors.InvalidArgumentError), sizes.reraise_errors(8, 8):  # a fault of the network
        compiled(tf.zeros([1, 9, 8, 3]))
