"""Layers against NumPy and against PyTorch's definitions, worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.replica_context import set_example_weights
from models.networks import layers, norms


def random(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, shape)


@pytest.mark.parametrize("padding", [1, 3])
def test_reflection_padding(padding):
    x = random(2, 5, 7, 3)
    widths = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    layer = layers.ReflectionPadding2D(padding, dtype="float64")
    np.testing.assert_array_equal(layer(x), np.pad(x, widths, "reflect"))
    assert layer.compute_output_shape((None, None, 7, 3)) == (None, None, 7 + 2 * padding, 3)


def normalized(x, axes, epsilon=1e-5):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def test_instance_norm():
    x = random(3, 5, 6, 4, mean=10)
    y = norms.InstanceNorm(dtype="float64")(x)
    assert y.dtype == tf.float64
    np.testing.assert_allclose(y, normalized(x, (1, 2)), rtol=0, atol=1e-12)


def test_half_precision_is_normalised_in_float32():
    x = random(2, 64, 64, 3, mean=100).astype(np.float32)
    rounded = tf.cast(x, tf.bfloat16)
    expected = normalized(tf.cast(rounded, tf.float64).numpy(), (1, 2))
    for layer in (norms.InstanceNorm, norms.BatchNorm):
        layer = layer(dtype="mixed_bfloat16")
        layer.build(x.shape)
        if layer.weights:
            layer.gamma.assign(np.ones(3))
        y = layer(rounded, training=False)
        assert y.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(y, tf.float64), expected, rtol=0.005, atol=1e-5)
        assert all(variable.dtype == "float32" for variable in layer.variables)


def batch_norm(x, *, kind=norms.BatchNorm, dtype="float64", **kwargs):
    layer = kind(dtype=dtype, **kwargs)
    layer.build(x.shape)
    layer.gamma.assign(random(x.shape[-1], seed=1))
    layer.beta.assign(random(x.shape[-1], seed=2))
    return layer


def test_batch_norm_in_training():
    x = random(3, 4, 2, 5, mean=3)
    layer = batch_norm(x)
    y = layer(x, training=True)
    expected = normalized(x, (0, 1, 2)) * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean((0, 1, 2)), atol=1e-12)
    unbiased = x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * unbiased, atol=1e-12)


def test_batch_norm_in_inference():
    x = random(3, 4, 2, 5, mean=3)
    layer = batch_norm(x, inference_norm="batch_statistics")
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    y = layer(x, training=False)
    np.testing.assert_allclose(y, normalized(x, (1, 2)) * gamma + beta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(y[1:2], layer(x[1:2], training=False), rtol=0, atol=1e-12)

    layer = batch_norm(x, inference_norm="moving_statistics")
    layer.moving_mean.assign(random(5, seed=3))
    layer.moving_variance.assign(random(5, seed=4) ** 2)
    before = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    y = layer(x, training=False)
    expected = (x - before[0]) / np.sqrt(before[1] + 1e-5) * gamma + beta
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(before, [layer.moving_mean, layer.moving_variance])


def test_batch_norm_does_not_cancel_when_the_mean_is_large():
    x = random(2, 16, 16, 3, mean=1e4).astype(np.float32)
    layer = norms.BatchNorm()
    y = layer(x, training=True) / layer.gamma
    np.testing.assert_allclose(y, normalized(x.astype(np.float64), (0, 1, 2)), atol=5e-3)


@pytest.mark.parametrize("kind", [norms.BatchNorm, norms.GlobalBatchNormalization])
def test_batch_norm_of_one_replica_in_float32_is_one_operation(kind):
    """It gives what the same layer gives in float64, without the fused operation."""
    x, weight = random(3, 4, 2, 5, mean=3), random(3, 4, 2, 5, seed=6)
    fused, exact = (batch_norm(x, kind=kind, dtype=dtype) for dtype in ("float32", "float64"))

    def values(layer):
        @tf.function
        def with_gradients(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(y * tf.cast(weight, y.dtype))
            return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

        given = tf.constant(x, layer.compute_dtype)
        kinds = {
            operation.type for operation in with_gradients.get_concrete_function(given).graph.get_operations()
        }
        found = tf.nest.flatten(with_gradients(given))
        return "FusedBatchNormV3" in kinds, [*found, layer.moving_mean.numpy(), layer.moving_variance.numpy()]

    (is_fused, actual), (is_exact_fused, expected) = values(fused), values(exact)
    assert is_fused and not is_exact_fused
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=2e-5)


def test_padding_rows_do_not_count_in_batch_norm():
    x = random(3, 4, 4, 2)
    padded = np.concatenate([x, np.full((1, 4, 4, 2), 100.0)] * 2)  # two stacked batches
    whole, weighted = norms.BatchNorm(dtype="float64"), norms.BatchNorm(dtype="float64")
    whole.build(x.shape), weighted.build(x.shape)
    weighted.set_weights(whole.get_weights())
    expected = whole(np.concatenate([x, x]), training=True)
    with set_example_weights(tf.constant([1.0, 1.0, 1.0, 0.0])):
        actual = weighted(padded, training=True)
    np.testing.assert_allclose(np.delete(actual, [3, 7], axis=0), expected, atol=1e-12)
    for left, right in zip(weighted.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


def test_initial_values():
    x = keras.Input((None, None, 256))
    y = layers.Conv(256, 3, name="conv")(x)
    y = layers.ConvTranspose(256, 4, name="transposed")(y)
    model = keras.Model(x, norms.normalise(y, "batch", name="norm"))
    values = {v.path: v.numpy() for v in model.variables}
    for name in ("conv", "transposed"):
        assert abs(values[f"{name}/kernel"].mean()) < 1e-4
        assert abs(values[f"{name}/kernel"].std() - 0.02) < 1e-4
        assert not values[f"{name}/bias"].any()
    assert abs(values["norm/gamma"].mean() - 1) < 0.01
    assert abs(values["norm/gamma"].std() - 0.02) < 0.005
    assert not values["norm/beta"].any()


@pytest.mark.parametrize("layer", [norms.InstanceNorm, norms.BatchNorm])
def test_second_derivatives(layer):
    """Gradient penalties differentiate a gradient: compared with finite differences."""
    x = random(2, 3, 3, 2)
    layer = layer(dtype="float64")
    layer.build(x.shape)
    weight, probe, direction = (random(*x.shape, seed=seed) for seed in (1, 2, 3))

    def slope(x):
        """The derivative along `probe`, whose mean is not zero: there moments go wrong first."""
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_sum(layer(x, training=True) ** 2 * weight)
        return tf.reduce_sum(tape.gradient(score, x) * probe)

    with tf.GradientTape() as tape:
        x = tf.constant(x)
        tape.watch(x)
        value = slope(x)
    second = tf.reduce_sum(tape.gradient(value, x) * direction)
    step = 1e-5 * direction
    np.testing.assert_allclose(second, (slope(x + step) - slope(x - step)) / 2e-5, rtol=1e-6)


def torch_conv(x, weight, *, stride, padding):
    """PyTorch's Conv2d by its definition; x [B, H, W, C], weight (h, w, in, out)."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    kernel = weight.shape[0]
    rows = (x.shape[1] - kernel) // stride + 1
    columns = (x.shape[2] - kernel) // stride + 1
    y = np.zeros((x.shape[0], rows, columns, weight.shape[3]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            y[:, i, j] = np.tensordot(patch, weight, 3)
    return y


def torch_conv_transpose(x, weight, *, padding, output_padding):
    """PyTorch's ConvTranspose2d at stride 2: every pixel adds its kernel, then the border goes."""
    batch, height, width, _ = x.shape
    kernel, _, channels, _ = weight.shape  # (h, w, out, in)
    y = np.zeros((batch, 2 * height + kernel, 2 * width + kernel, channels))
    for i in range(height):
        for j in range(width):
            stamp = np.einsum("bi,hwoi->bhwo", x[:, i, j], weight)
            y[:, 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel] += stamp
    rows = (height - 1) * 2 - 2 * padding + kernel + output_padding
    columns = (width - 1) * 2 - 2 * padding + kernel + output_padding
    return y[:, padding : padding + rows, padding : padding + columns]


def test_instance_norm_is_one_operation_an_example_on_a_cpu():
    """In float32, beside the float64 of plain operations; with a gradient of a gradient."""
    x, weight = random(3, 5, 4, 2), random(3, 5, 4, 2, seed=1)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")

    def with_gradients(x):
        layer = norms.InstanceNorm(dtype=x.dtype)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x)
                score = tf.reduce_sum(y**3 * tf.cast(weight, x.dtype))
            gradient = inner.gradient(score, x)
            penalty = tf.reduce_sum(gradient**2)
        return y, gradient, outer.gradient(penalty, x)

    in_strategy = tf.function(lambda x: strategy.run(with_gradients, args=(x,)))
    found = {}
    for dtype, fused in (("float32", 3), ("float64", 0)):
        given = tf.constant(x, dtype)
        operations = in_strategy.get_concrete_function(given).graph.get_operations()
        assert [operation.type for operation in operations].count("FusedBatchNormV3") == fused
        found[dtype] = in_strategy(given)
    for ours, expected in zip(found["float32"], found["float64"], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (4, 2, 1), (4, 1, 1), (7, 1, 0)])
@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
def test_convolution_geometry(kernel, stride, padding, size):
    layer = layers.Conv(2, kernel, stride=stride, padding=padding, dtype="float64")
    x, weight = random(2, *size, 3), random(kernel, kernel, 3, 2, seed=1)
    layer.build(x.shape)
    layer.kernel.assign(weight)
    expected = torch_conv(x, weight, stride=stride, padding=padding)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-12)


def test_one_output_channel_is_a_matrix_product_on_a_cpu():
    layer = layers.Conv(1, 4, padding=1, dtype="float64")
    x, weight = random(2, 7, 6, 3), random(4, 4, 3, 1, seed=1)
    layer.build(x.shape)
    layer.kernel.assign(weight)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")

    def with_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y**3)
        return y, tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])

    in_strategy = tf.function(lambda x: strategy.run(with_gradients, args=(x,)))
    outside = tf.function(with_gradients)
    given = tf.constant(x)
    for function, kind in ((in_strategy, "BatchMatMulV2"), (outside, "Conv2D")):
        graph = function.get_concrete_function(given).graph
        kinds = {operation.type for operation in graph.get_operations()}
        assert kinds & {"BatchMatMulV2", "Conv2D"} == {kind}
    y, gradients = in_strategy(given)
    np.testing.assert_allclose(y, torch_conv(x, weight, stride=1, padding=1), rtol=0, atol=1e-12)
    for actual, expected in zip(gradients, outside(given)[1], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel, output_padding", [(3, 1), (4, 0)])
@pytest.mark.parametrize("size", [(4, 6), (3, 5)])
def test_transposed_convolution_geometry(kernel, output_padding, size):
    layer = layers.ConvTranspose(2, kernel, dtype="float64")
    x, weight = random(2, *size, 3), random(kernel, kernel, 2, 3, seed=1)
    layer.build(x.shape)
    layer.kernel.assign(weight)
    expected = torch_conv_transpose(x, weight, padding=1, output_padding=output_padding)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [layers.Conv, layers.ConvTranspose])
def test_a_saved_convolution_computes_the_same(make, tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, make(2, 3, activation="tanh", use_bias=False)(image))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = random(1, 8, 8, 3)
    np.testing.assert_array_equal(again(x), model(x))
    assert np.abs(model(x)).max() <= 1 and again.layers[1].activation is keras.activations.tanh


def test_unknown_names_are_refused():
    x = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="'layer': unknown; use one of batch, instance, none"):
        norms.normalise(x, "layer", name="norm")
    with pytest.raises(ValueError, match="use one of batch_statistics, moving_statistics"):
        norms.normalise(x, "instance", inference_norm="moving", name="norm")
