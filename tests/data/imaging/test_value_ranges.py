"""From stored values to [-1, 1] and back."""

import numpy as np
import pytest
import tensorflow as tf

from data.imaging import range_to_signed, signed_to_range, to_uint8


@pytest.mark.parametrize("dtype, low, high", [("uint8", 0, 255), ("uint16", 0, 4095), ("uint16", 0, 65535)])
def test_every_integer_comes_back(dtype, low, high):
    values = np.arange(low, high + 1).astype(dtype)
    signed = range_to_signed(values, low=low, high=high)
    assert (signed[0], signed[-1]) == (-1, 1)
    np.testing.assert_array_equal(
        signed_to_range(signed, low=low, high=high, dtype=tf.as_dtype(dtype)), values
    )
    outside = signed_to_range(tf.constant([-1.5, 1.5]), low=low, high=high, dtype=tf.as_dtype(dtype))
    np.testing.assert_array_equal(outside, [low, high])


def test_eight_bits_are_those_of_to_uint8():
    signed = tf.linspace(-1.1, 1.1, 10001)
    np.testing.assert_array_equal(signed_to_range(signed, low=0, high=255, dtype=tf.uint8), to_uint8(signed))


def test_floats_are_neither_rounded_nor_clipped():
    values = signed_to_range(tf.constant([-1.0, 0.0, 1.5]), low=-4.0, high=2.0, dtype=tf.float32)
    np.testing.assert_allclose(values, [-4, -1, 3.5], rtol=1e-6)
