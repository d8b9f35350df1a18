"""Spectral normalisation against NumPy's singular values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.precision import set_precision
from models.networks.layers import Conv, ConvTranspose, image_input
from models.networks.spectral_norm import SpectralNorm


def layers():
    return {
        "dense": (keras.layers.Dense(5, name="inner"), (2, 7)),
        "conv": (Conv(6, 4, stride=2, padding=1, name="inner"), (2, 8, 8, 3)),
        "transposed": (ConvTranspose(6, 4, name="inner"), (2, 4, 4, 3)),
    }


def matrix_of(kind, kernel):
    if kind == "transposed":
        kernel = np.swapaxes(kernel, 2, 3)
    return kernel.reshape(-1, kernel.shape[-1])


def iterate(matrix, u, passes=1):
    """(u after the passes, norm in the last)."""
    for _ in range(passes):
        v = matrix @ u
        v /= np.linalg.norm(v)
        u = matrix.T @ v
        u /= np.linalg.norm(u)
    return u, v @ matrix @ u


def built(kind):
    set_precision("float64")
    layer, shape = layers()[kind]
    wrapped = SpectralNorm(layer, name="wrapped")
    wrapped.build(shape)
    kernel = np.random.default_rng(0).normal(size=layer.kernel.shape)
    layer.kernel.assign(kernel)
    return wrapped, kernel, np.random.default_rng(1).normal(size=shape)


@pytest.mark.parametrize("kind", layers())
def test_a_training_pass_divides_by_the_norm_and_moves_once(kind):
    wrapped, kernel, x = built(kind)
    u = wrapped.u.numpy()
    plain = wrapped.layer(x).numpy()
    moved, norm = iterate(matrix_of(kind, kernel), u)
    np.testing.assert_allclose(wrapped(x), plain / norm, rtol=0, atol=1e-12)  # biases are zero
    np.testing.assert_array_equal(wrapped.u, u)
    np.testing.assert_allclose(wrapped(x, training=True), plain / norm, rtol=0, atol=1e-12)
    np.testing.assert_allclose(wrapped.u, moved, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(wrapped.layer.kernel, kernel)
    assert [w.name for w in wrapped.non_trainable_weights] == ["u"]
    assert [w.name for w in wrapped.trainable_weights] == ["kernel", "bias"]


@pytest.mark.parametrize("kind", layers())
def test_many_passes_give_the_largest_singular_value(kind):
    wrapped, kernel, x = built(kind)
    plain = wrapped.layer(x).numpy()
    for _ in range(200):
        wrapped(x, training=True)
    largest = np.linalg.svd(matrix_of(kind, kernel), compute_uv=False)[0]
    np.testing.assert_allclose(wrapped(x), plain / largest, rtol=0, atol=1e-6)


def test_gradients_go_through_the_norm_with_constant_vectors():
    wrapped, kernel, x = built("dense")
    cotangent = np.random.default_rng(2).normal(size=(2, 5))
    u, norm = iterate(kernel, wrapped.u.numpy())
    v = kernel @ wrapped.u.numpy()
    v /= np.linalg.norm(v)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(wrapped(x, training=True) * cotangent)
    straight = x.T @ cotangent
    # d(W / s) with s = v' W u: what PyTorch's derivation in the paper (equation 12) gives.
    expected = straight / norm - np.sum(straight * kernel) / norm**2 * np.outer(v, u)
    np.testing.assert_allclose(tape.gradient(total, wrapped.layer.kernel.value), expected, atol=1e-12)


def test_a_kernel_of_zeros_stays_finite():
    wrapped, kernel, x = built("conv")
    wrapped.layer.kernel.assign(0 * kernel)
    with tf.GradientTape() as tape:
        y = wrapped(x, training=True)
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(tape.gradient(y, wrapped.layer.kernel.value)))
    assert np.all(np.isfinite(wrapped.u))


def test_a_model_with_it_is_saved_and_read(tmp_path):
    image = image_input(3)
    y = SpectralNorm(Conv(4, 3, padding=1, name="inner"), name="wrapped")(image)
    model = keras.Model(image, y)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    model(x, training=True)
    path = str(tmp_path / "model.keras")
    model.save(path)
    np.testing.assert_allclose(keras.models.load_model(path)(x), model(x), rtol=0, atol=1e-6)
    assert tf.function(model)(x).shape == (1, 8, 8, 4)


def test_half_precision_takes_the_norm_of_the_kernel_as_stored():
    set_precision("bfloat16")
    image = image_input(3)
    wrapped = SpectralNorm(Conv(4, 3, padding=1, name="inner"))
    model = keras.Model(image, wrapped(image))
    moved, _ = iterate(matrix_of("conv", wrapped.layer.kernel.numpy()), wrapped.u.numpy())
    y = model(tf.ones([1, 8, 8, 3]), training=True)
    assert y.dtype == tf.bfloat16 and wrapped.u.dtype == "float32"
    np.testing.assert_allclose(wrapped.u, moved, rtol=0, atol=1e-6)


def test_a_layer_without_kernel_is_refused():
    with pytest.raises(ValueError, match="relu: has no kernel"):
        SpectralNorm(keras.layers.ReLU(name="relu")).build((1, 8))
