"""Every optimizer: against PyTorch over 50 steps, against Keras, on replicas, in micro-batches, restarted."""

import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling
from engine.errors import ConfigurationError
from engine.inner_loop.optimizer_state import VariableRates
from engine.inner_loop.optimizers import make_optimizer
from engine.optimizers import Adam, Lion, RmsProp, Sgd
from engine.task import Phase, Task
from models.networks.layers import image_input, variable_dtype
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.torch_optimizers import OUTPUT, SHAPES, STEPS, gradients_and_start

PYTORCH = {
    "sgd": Sgd(learning_rate=0.1, momentum=0.0),
    "momentum": Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": Sgd(learning_rate=0.1, momentum=0.9, nesterov=True),
    "rmsprop": RmsProp(learning_rate=0.01, rho=0.9, weight_decay=0.05),
    "rmsprop_momentum": RmsProp(learning_rate=0.01, rho=0.9, momentum=0.8),
    "adam": Adam(learning_rate=0.02, beta1=0.5, beta2=0.99),
    "adamw": Adam(learning_rate=0.02, beta1=0.5, beta2=0.99, weight_decay=0.3),
    "amsgrad": Adam(learning_rate=0.02, beta1=0.5, beta2=0.9, amsgrad=True),
}
KERAS = {
    "rmsprop": (
        RmsProp(learning_rate=0.01, rho=0.9, momentum=0.8, epsilon=0.1, epsilon_mode="keras"),
        lambda: keras.optimizers.RMSprop(0.01, rho=0.9, momentum=0.8, epsilon=0.1),
    ),
    "lion": (
        Lion(learning_rate=0.01, beta1=0.8, beta2=0.9, weight_decay=0.3),
        lambda: keras.optimizers.Lion(0.01, beta_1=0.8, beta_2=0.9, weight_decay=0.3),
    ),
    "amsgrad": (
        Adam(learning_rate=0.02, beta1=0.5, beta2=0.9, epsilon=0.1, epsilon_mode="keras", amsgrad=True),
        lambda: keras.optimizers.Adam(0.02, beta_1=0.5, beta_2=0.9, epsilon=0.1, amsgrad=True),
    ),
}
EVERY = [*PYTORCH.values(), *(settings for settings, _ in KERAS.values())]
SIZE = 16
ALL_KINDS = [PYTORCH["nesterov"], PYTORCH["rmsprop_momentum"], KERAS["lion"][0], PYTORCH["amsgrad"]]


def network(start):
    layer = keras.layers.Dense(SHAPES[0][1], dtype="float64")
    model = keras.Sequential([keras.Input(SHAPES[0][:1], dtype="float64"), layer])
    layer.set_weights(start)
    return model


def hyperparameters(settings):
    return BatchScaling(examples_per_epoch=1, first_batch=1).hyperparameters(
        settings,
        examples=tf.constant(0, tf.int64),
        global_batch=tf.constant(1),
        growth=tf.constant(1.0, tf.float64),
        plateau_factor=tf.constant(1.0, tf.float64),
    )


def run(settings, rates=None):
    """The variables after all steps, in one compiled function."""
    gradients, start = gradients_and_start()
    model = network(start)
    optimizer = make_optimizer(settings, {"net": model}, rates)

    @tf.function(autograph=False)
    def step(*gradient):
        optimizer.apply("net", model.trainable_variables, gradient, hyperparameters(settings))

    for gradient in gradients:
        step(*map(tf.constant, gradient))
    return [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize("name", PYTORCH)
def test_fifty_steps_are_those_of_pytorch(name):
    expected = np.load(OUTPUT)
    for index, value in enumerate(run(PYTORCH[name])):
        np.testing.assert_allclose(value, expected[f"{name}/{index}"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", KERAS)
def test_fifty_steps_are_those_of_keras(name):
    settings, make = KERAS[name]
    gradients, start = gradients_and_start()
    model, optimizer = network(start), make()
    for gradient in gradients:
        optimizer.apply_gradients(zip(map(tf.constant, gradient), model.trainable_variables, strict=True))
    for value, variable in zip(run(settings), model.trainable_variables, strict=True):
        # Keras keeps hyper-parameters in float32.
        np.testing.assert_allclose(value, variable.numpy(), rtol=0, atol=2e-6)


def test_rates_of_a_variable_replace_those_of_its_optimizer():
    """Two variables with rates of their own are two optimizers with these settings."""
    rates = [VariableRates(0.5, 0.2), VariableRates(2.0, 0.0)]
    for make in (Sgd, RmsProp, Lion, Adam):
        both = run(make(learning_rate=0.02, weight_decay=0.1), {"net": rates})
        for index, (rate, decay) in enumerate(((0.01, 0.2), (0.04, 0.0))):
            alone = run(make(learning_rate=rate, weight_decay=decay))[index]
            np.testing.assert_allclose(both[index], alone, rtol=1e-12, atol=1e-12)


class OneOfEach(Task):
    """A network for each optimizer, a weight for each channel: one trace serves all of them."""

    def __init__(self):
        self.optimizers = {type(settings).__name__.lower(): settings for settings in ALL_KINDS}

    def networks(self, example):
        def scale(name):
            image = image_input(3)
            layer = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")
            x = keras.layers.Activation("linear", dtype=variable_dtype())(layer(image))
            return keras.Model(image, x, name=name)

        return {name: scale(name) for name in self.optimizers}

    def phases(self):
        return tuple(
            Phase(name=name, loss=functools.partial(self.fit, name), updates=(name,), optimizer=name)
            for name in self.optimizers
        )

    def fit(self, name, step):
        error = step.networks[name](step.batch["input"], training=True) - step.batch["target"]
        return {"square": tf.reduce_mean(error**2, axis=[1, 2, 3])}

    def translate(self, networks, batch):
        return networks["sgd"](batch["input"])


def test_replicas_and_micro_batches_change_nothing(make_trainer, noise_pairs):
    settings = {"total_examples": 1, "precision": "float64"}
    trainers = [
        make_trainer(OneOfEach(), noise_pairs(size=SIZE), cpu_replicas=replicas, **settings)
        for replicas in (1, 3)
    ]
    whole = train(trainers[0], plans_of(7, None, 1, steps=5))
    slots = [name for name in whole[1] if name.startswith("optimizer/") and name[-6:] != "_power"]
    assert len(slots) == 1 + 2 + 1 + 3 and all(np.ptp(whole[1][name]) > 0 for name in slots)
    assert_same(train(trainers[0], plans_of(7, 3, 1, steps=5)), whole)
    assert_same(train(trainers[1], plans_of(7, None, 3, steps=5)), whole)


def test_a_restart_continues_bit_for_bit(make_trainer, noise_pairs, tmp_path):
    def trainer(total, workdir):
        return make_trainer(
            OneOfEach(),
            noise_pairs(size=SIZE),
            total_examples=total,
            batch_schedule="0:2, 6:3",
            workdir=str(workdir),
            feature_extractor=None,  # which would take time to trace
        )

    whole = trainer(24, tmp_path / "whole")
    whole.run()
    trainer(12, tmp_path / "stopped").run()
    resumed = trainer(24, tmp_path / "stopped")
    assert resumed.restore() == 12
    resumed.run()
    values = {name: variable.numpy() for name, variable in resumed.state.variables().items()}
    for name, variable in whole.state.variables().items():
        np.testing.assert_array_equal(values[name], variable.numpy(), err_msg=name)


def test_float16_trains_as_float32_does(make_trainer, noise_pairs):
    losses = {}
    for precision in ("float32", "float16"):
        trainer = make_trainer(OneOfEach(), noise_pairs(size=SIZE), total_examples=1, precision=precision)
        losses[precision] = train(trainer, plans_of(4, None, 1, steps=10))[0]
    assert (losses["float16"][-1] < losses["float16"][0]).all()
    np.testing.assert_allclose(losses["float16"], losses["float32"], rtol=0.02)


def test_batch_rules_by_hand():
    """k = 4; the rules of momentum, rho and Lion's betas."""

    def at(settings, rule):
        scaling = BatchScaling(examples_per_epoch=10, first_batch=2, rule=rule, scale_weight_decay=True)
        scaling.check({"net": settings}, {8: "0:8"})
        result = scaling.hyperparameters(
            settings,
            examples=tf.constant(0, tf.int64),
            global_batch=tf.constant(8),
            growth=tf.constant(4.0, tf.float64),
            plateau_factor=tf.constant(1.0, tf.float64),
        )
        return [float(value) for value in result]

    decay = {"learning_rate": 0.01, "weight_decay": 0.5}
    expected = pytest.approx  # learning rate, beta1, beta2, epsilon, weight decay and its factor
    assert at(Sgd(**decay), "linear") == expected([0.04, 0.9, 0, 0, 0.5, 1])
    assert at(Sgd(**decay), "square_root") == expected([0.02, 0.9, 0, 0, 1.0, 2])
    prop = RmsProp(**decay, rho=0.9, momentum=0.5, epsilon=1e-4)
    assert at(prop, "linear") == expected([0.04, 0.5, 0.9, 1e-4, 0.5, 1])
    assert at(prop, "square_root") == expected([0.02, 0.5, 0.6, 5e-5, 1.0, 2])
    assert at(Lion(**decay), "square_root") == expected([0.02, 0.6, 0.96, 0, 1.0, 2])
    assert at(Lion(**decay), "square_root_beta1_kept") == expected([0.02, 0.9, 0.96, 0, 1.0, 2])


def test_a_batch_too_large_for_rho_is_refused_by_its_name():
    scaling = BatchScaling(examples_per_epoch=10, first_batch=1, rule="square_root")
    with pytest.raises(ConfigurationError, match=r"rho = 1 - 16 \* \(1 - 0.9\) = -0.6, below 0"):
        scaling.check({"net": RmsProp(rho=0.9)}, {16: "0:16"})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Sgd(momentum=1.0), "Sgd.momentum = 1.0: must lie in"),
        (lambda: Sgd(momentum=0.0, nesterov=True), "needs a momentum"),
        (lambda: RmsProp(rho=-0.1), "RmsProp.rho = -0.1"),
        (lambda: RmsProp(epsilon_mode="tf"), "RmsProp.epsilon_mode = 'tf': unknown"),
        (lambda: Lion(learning_rate=-1), "Lion.learning_rate"),
        (lambda: Adam(beta2=1.5), "Adam.beta2 = 1.5: must lie in"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_there_is_a_case_for_every_optimizer_and_a_golden_for_every_case():
    assert {type(settings) for settings in EVERY} == {Adam, Sgd, RmsProp, Lion}
    assert os.path.exists(OUTPUT) and STEPS == 50
