"""The fused Adam, against Adam in NumPy with hyper-parameters that change from step to step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling, Hyperparameters
from engine.inner_loop.adam_state import AdamState
from engine.task import Adam

SIZES = (5, 3)


def network(dtype="float64"):
    layer = keras.layers.Dense(SIZES[1], dtype=dtype)
    model = keras.Sequential([keras.Input((SIZES[0],), dtype=dtype), layer])
    rng = np.random.default_rng(3)
    layer.set_weights([rng.normal(size=SIZES), rng.normal(size=SIZES[1:])])
    return model


def values(model):
    return [variable.numpy() for variable in model.trainable_variables]


def gradients(steps, scale=1.0):
    rng = np.random.default_rng(7)
    return [[scale * rng.normal(size=SIZES), scale * rng.normal(size=SIZES[1:])] for _ in range(steps)]


def hyperparameters(learning_rate=0.1, beta1=0.5, beta2=0.9, epsilon=0.3, weight_decay=0.0):
    numbers = (learning_rate, beta1, beta2, epsilon, weight_decay)
    return Hyperparameters(*(tf.constant(number, tf.float64) for number in numbers))


def run(optimizer, model, all_gradients, all_hyper, strategy=None):
    """Applies step after step in one compiled function, as the training step does."""
    strategy = strategy or tf.distribute.get_strategy()

    @tf.function(autograph=False)
    def step(gradient, hyper):
        strategy.run(
            tf.autograph.experimental.do_not_convert(
                lambda g, h: optimizer.apply("net", model.trainable_variables, g, h)
            ),
            args=(gradient, hyper),
        )

    for gradient, hyper in zip(all_gradients, all_hyper, strict=True):
        dtype = model.trainable_variables[0].dtype
        step([tf.constant(g, dtype) for g in gradient], hyper)


def numpy_adam(weights, all_gradients, all_hyper, mode):
    """Kingma and Ba's algorithm 1 for betas that change: the corrections divide by the weights' sums."""
    weights = [w.astype(np.float64) for w in weights]
    m, v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    product1 = product2 = 1.0
    for gradient, hyper in zip(all_gradients, all_hyper, strict=True):
        rate, beta1, beta2, epsilon, decay = (float(number) for number in hyper[:5])
        product1, product2 = product1 * beta1, product2 * beta2
        for i, g in enumerate(gradient):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            mean, square = m[i] / (1 - product1), v[i] / (1 - product2)
            root = np.sqrt(square) + epsilon
            if mode == "keras":
                root = (np.sqrt(v[i]) + epsilon) / np.sqrt(1 - product2)
            weights[i] = weights[i] - rate * decay * weights[i] - rate * mean / root
    return weights


CHANGING = (
    [hyperparameters()] * 3
    + [hyperparameters(0.14, 0.2, 0.8, 0.2, 0.4)] * 2
    + [hyperparameters(0.2, 0.0, 0.6, 0.1, 0.8)] * 2
    + [hyperparameters(0.05, 0.75, 0.95, 0.5, 0.1)] * 2
)


@pytest.mark.parametrize("mode", ["pytorch", "keras"])
@pytest.mark.parametrize("decays", [True, False])
def test_changing_hyperparameters_follow_the_definition(mode, decays):
    model = network()
    steps = CHANGING
    if not decays:
        steps = [hyper._replace(weight_decay=tf.constant(0.0, tf.float64)) for hyper in steps]
    start, drawn = values(model), gradients(len(steps))
    optimizer = AdamState(Adam(epsilon_mode=mode, weight_decay=1.0 if decays else 0.0), {"net": model})
    run(optimizer, model, drawn, steps)
    for value, expected in zip(values(model), numpy_adam(start, drawn, steps, mode), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


def test_the_mean_of_equal_gradients_is_that_gradient_whatever_the_betas():
    """What bias correction is for: the first moments' weights sum to 1, also after the betas changed."""
    model = network()
    optimizer = AdamState(Adam(epsilon=0.0), {"net": model})
    steps = [
        hyperparameters(0.1, 0.5, 0.9, 0.0),
        hyperparameters(0.2, 0.25, 0.6, 0.0),
        hyperparameters(0.3, 0.9, 0.99, 0.0),
    ]
    start, gradient = values(model), gradients(1)[0]
    run(optimizer, model, [gradient] * 3, steps)
    for value, w, g in zip(values(model), start, gradient, strict=True):
        np.testing.assert_allclose(value, w - 0.6 * np.sign(g), rtol=1e-12)


def test_constant_betas_give_the_powers_of_the_published_formula():
    model = network()
    optimizer = AdamState(Adam(), {"net": model})
    run(optimizer, model, gradients(200), [hyperparameters(beta1=0.9, beta2=0.999)] * 200)
    kept = {name: variable.numpy() for name, variable in optimizer.variables.items()}
    assert kept["net/beta1_power"].dtype == kept["net/beta2_power"].dtype == np.float64
    np.testing.assert_allclose(kept["net/beta1_power"], 0.9**200, rtol=1e-12)
    np.testing.assert_allclose(kept["net/beta2_power"], 0.999**200, rtol=1e-12)
    assert list(kept) == ["net/beta1_power", "net/beta2_power"] + [
        f"net/00{index}/{moment}" for index in (0, 1) for moment in "mv"
    ]


def test_weight_decay_without_gradients_shrinks_by_its_closed_form():
    model = network()
    start = values(model)
    optimizer = AdamState(Adam(weight_decay=0.3), {"net": model})
    zeros = [[np.zeros_like(w) for w in start]] * 10
    run(optimizer, model, zeros, [hyperparameters(0.01, weight_decay=0.3)] * 10)
    for value, w in zip(values(model), start, strict=True):
        np.testing.assert_allclose(value, w * (1 - 0.01 * 0.3) ** 10, rtol=1e-12)


def test_without_the_setting_no_decay_is_computed():
    model = network()
    start = values(model)
    optimizer = AdamState(Adam(), {"net": model})
    zeros = [[np.zeros_like(w) for w in start]]
    run(optimizer, model, zeros, [hyperparameters(weight_decay=0.5)])
    for value, w in zip(values(model), start, strict=True):
        np.testing.assert_array_equal(value, w)


def test_doubling_a_batch_with_beta1_one_half_gives_zero_momentum_and_finite_updates():
    settings = Adam(learning_rate=0.1, beta1=0.5, beta2=0.999, weight_decay=0.1)
    scaling = BatchScaling(examples_per_epoch=10, first_batch=1, rule="square_root", scale_weight_decay=True)

    def at(batch):
        return scaling.hyperparameters(
            settings,
            examples=tf.constant(0, tf.int64),
            global_batch=tf.constant(batch),
            growth=tf.constant(float(batch), tf.float64),
            plateau_factor=tf.constant(1.0, tf.float64),
        )

    assert float(at(2).beta1) == 0.0
    for steps in ([at(2)] * 3, [at(1)] * 2 + [at(2)] * 3 + [at(1)] * 2):
        model = network()
        start, drawn = values(model), gradients(len(steps), scale=1e-3)
        run(AdamState(settings, {"net": model}), model, drawn, steps)
        for value, expected in zip(values(model), numpy_adam(start, drawn, steps, "pytorch"), strict=True):
            assert np.isfinite(value).all()
            np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_networks_keep_powers_apart():
    models = {"net": network(), "other": network()}
    optimizer = AdamState(Adam(), models)
    run(optimizer, models["net"], gradients(2), [hyperparameters()] * 2)
    kept = {name: float(v.numpy()) for name, v in optimizer.variables.items() if v.shape == ()}
    assert kept == {
        "net/beta1_power": 0.25, "net/beta2_power": pytest.approx(0.81),
        "other/beta1_power": 1, "other/beta2_power": 1,
    }  # fmt: skip


def test_replicas_keep_equal_powers_and_weights():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = network()
        optimizer = AdamState(Adam(weight_decay=1.0), {"net": model})
    start, drawn = values(model), gradients(len(CHANGING))
    run(optimizer, model, drawn, CHANGING, strategy)
    expected = numpy_adam(start, drawn, CHANGING, "pytorch")
    for replica in range(2):
        for variable, goal in zip(model.trainable_variables, expected, strict=True):
            local = strategy.experimental_local_results(variable.value)[replica]
            np.testing.assert_allclose(local.numpy(), goal, rtol=1e-12, atol=1e-12)
        for field in ("beta1", "beta2"):
            product = np.prod([float(getattr(hyper, field)) for hyper in CHANGING])
            kept = strategy.experimental_local_results(optimizer.variables[f"net/{field}_power"])[replica]
            np.testing.assert_allclose(kept.numpy(), product, rtol=1e-12)
