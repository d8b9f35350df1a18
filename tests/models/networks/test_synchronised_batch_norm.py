"""Batch norm synchronised over replicas equals one device: float64, uneven and missing shares."""

import contextlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import custom_gradient, op_selector

from engine.inner_loop.batch_rows import whole_step
from engine.replica_context import set_example_weights
from models.networks.batch_moments import batch_moments
from models.networks.layers import image_input
from models.networks.norms import BatchNorm
from models.networks.patchgan import patchgan
from models.networks.unet import unet

# Nothing happens here when the devices exist already.
with contextlib.suppress(RuntimeError):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
    )


def mirrored(replicas):
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < replicas:
        pytest.skip(f"needs {replicas} logical CPU devices, there are {len(devices)}")
    # Collectives of several strategies on the same CPUs would collide in one process.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices[:replicas], cross_device_ops=reduction)


def random(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, shape)


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def run_step(build, x, *, replicas, penalty=False):
    """One forward and backward pass; returns [name, array] of all it computes.

    The loss is a fixed random projection of the output, over the global batch, plus (with
    `penalty`) the squared norm of its gradient with respect to x.
    """
    strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        model = build()
    for number, variable in enumerate(model.trainable_variables):
        variable.assign(random(*variable.shape, seed=number) * 0.3)
    weights = random(*model.compute_output_shape(x.shape), seed=1)
    total = len(x)
    data = tf.data.Dataset.from_tensor_slices((x, weights)).batch(len(x))

    def replica_step(x, weights):
        rows = whole_step(tf.constant(total))
        with set_example_weights(rows.weights):
            y, dx, gradients = differentiate(rows.slice_micro_batch(x), rows.slice_micro_batch(weights))
        return y[: rows.count], dx[: rows.count], gradients

    def differentiate(x, weights):
        with tf.GradientTape() as tape:
            tape.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = model(x, training=True)
                score = tf.reduce_sum(tf.square(y) * weights)
            if penalty:
                score += tf.reduce_sum(tf.square(inner.gradient(score, x)))
            loss = score / total
        dx, *gradients = tape.gradient(loss, [x, *model.trainable_variables])
        context = tf.distribute.get_replica_context()
        gradients = [context.all_reduce("SUM", gradient) for gradient in gradients]
        return y, dx, gradients

    @tf.function
    def step(batch):
        return strategy.run(replica_step, args=batch)

    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    y, dx, gradients = step(batch)
    local = strategy.experimental_local_results
    results = {"y": np.concatenate(local(y)), "dx": np.concatenate(local(dx))}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        results[f"gradient of {variable.path}"] = local(gradient)[0]
    for variable in model.non_trainable_variables:
        copies = [np.asarray(copy) for copy in local(variable.value)]
        assert len(copies) == replicas
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=variable.path)
        results[variable.path] = copies[0]
    return results


def assert_replicas_change_nothing(build, x, *, replicas, **kwargs):
    expected = run_step(build, x, replicas=1, **kwargs)
    actual = run_step(build, x, replicas=replicas, **kwargs)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-10 * scale, err_msg=name)


def one_norm():
    image = image_input(3)
    return keras.Model(image, BatchNorm(name="norm")(image))


@pytest.mark.parametrize("batch, replicas", [(7, 2), (1, 2), (7, 3), (2, 3)])
@pytest.mark.parametrize("penalty", [False, True])
def test_batch_norm(float64, batch, replicas, penalty):
    x = random(batch, 4, 3, 3, mean=5)
    assert_replicas_change_nothing(one_norm, x, replicas=replicas, penalty=penalty)


@pytest.mark.parametrize("batch", [7, 1])
def test_patchgan(float64, batch):
    def build():
        return patchgan(name="D", input_channels=3, filters=2)

    assert_replicas_change_nothing(build, random(batch, 32, 32, 3), replicas=2)


@pytest.mark.parametrize("batch", [3, 1])
def test_unet(float64, batch):
    def build():
        return unet(name="G", input_channels=3, output_channels=3, downsamplings=5, filters=2)

    assert_replicas_change_nothing(build, random(batch, 32, 32, 3), replicas=2)


def moments_of(parts, weights):
    """The moments that each of several replicas computes from its own part: [replica] of `BatchMoments`."""
    strategy = mirrored(len(parts))
    args = [
        strategy.experimental_distribute_values_from_function(
            lambda context, values=values: tf.constant(values[context.replica_id_in_sync_group])
        )
        for values in (parts, weights)
    ]
    moments = tf.function(lambda *args: strategy.run(batch_moments, args=args))(*args)
    local = [strategy.experimental_local_results(values) for values in moments]
    return [type(moments)(*(part.numpy() for part in own)) for own in zip(*local, strict=True)]


def test_precision_beside_a_large_mean():
    """Deviations of 1e-5 of the mean, between replicas as within them: E[x^2] - E[x]^2 is below 0 here."""
    parts = [np.float32(2**20 + 16 * r + np.round(8 * random(2, 4, 4, 3, seed=r))) for r in range(3)]
    weights = np.float32([[1, 1], [1, 0], [0, 0]])
    examples = np.float64(np.concatenate([parts[0], parts[1][:1]]))
    for own in moments_of(parts, weights):
        np.testing.assert_array_equal(np.ravel(own.count), [3 * 16])
        np.testing.assert_allclose(np.ravel(own.mean), examples.mean((0, 1, 2)), rtol=2e-7)
        # float32 rounds the mean of a replica, which is 8 from the common one, by up to 1/16.
        np.testing.assert_allclose(np.ravel(own.variance), examples.var((0, 1, 2)), rtol=0, atol=2 * 8 / 16)


def test_batches_with_moments_of_their_own_share_a_collective(monkeypatch):
    context, sizes = tf.distribute.ReplicaContext, []
    all_reduce = context.all_reduce

    def counted(self, op, values):
        sizes.append([values.shape.num_elements() for values in tf.nest.flatten(values)])
        return all_reduce(self, op, values)

    monkeypatch.setattr(context, "all_reduce", counted)
    weights = np.float32([[1, 1], [1, 0]])
    first, second = ([random(2, 4, 4, 3, seed=seed + r, mean=seed) for r in (0, 1)] for seed in (1, 5))
    both = [np.float32(np.stack(pair)) for pair in zip(first, second, strict=True)]
    together = moments_of(both, weights)
    # On each replica, one collective: of 2 replicas 2 moments of 2 batches, and the count.
    assert sizes == [[2 * (2 * 2 * 3 + 1)]] * 2
    for batch, parts in enumerate((first, second)):
        examples = np.concatenate([parts[0], parts[1][:1]])
        for r, own in enumerate(together):
            mean, variance = own.mean[batch, 0, 0, 0], own.variance[batch, 0, 0, 0]
            np.testing.assert_allclose(mean, examples.mean((0, 1, 2)), rtol=0, atol=1e-5)
            np.testing.assert_allclose(variance, examples.var((0, 1, 2)), rtol=1e-5)
            np.testing.assert_allclose(own.centred[batch], parts[r] - mean, rtol=0, atol=1e-5)


def test_tracing_does_not_search_the_graphs_of_the_other_replicas(monkeypatch):
    searched = []

    def search(*args, **kwargs):
        found = op_selector.get_backward_walk_ops(*args, **kwargs)
        searched.append(len(found))
        return found

    monkeypatch.setattr(custom_gradient, "op_selector", types.SimpleNamespace(get_backward_walk_ops=search))
    largest = []
    for layers in (1, 6):
        searched.clear()
        strategy = mirrored(2)
        with strategy.scope():
            norms = [BatchNorm() for _ in range(layers)]
            for norm in norms:
                norm.build((None, 4, 4, 3))

        def gradient(norms=norms):
            x = tf.ones([2, 4, 4, 3])
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = x
                for norm in norms:
                    y = norm(y, training=True)
            return tape.gradient(y, x)

        tf.function(
            lambda strategy=strategy, gradient=gradient: strategy.run(gradient)
        ).get_concrete_function()
        assert len(searched) >= 2 * layers
        largest.append(max(searched))
    assert largest[0] == largest[1]
