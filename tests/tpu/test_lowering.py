"""Every phase of every task, forward, backward and update, becomes a TPU program: TensorFlow's TPU build."""

import numpy as np
import pytest
import tensorflow as tf

from engine.distribution.devices import devices_of
from engine.distribution.precision import set_precision
from engine.evaluation.evaluator import Evaluator
from models.pix2pix import Pix2Pix
from tests.helpers import lowering
from tests.helpers.lowering import Recorder, Refused, lifted, lower
from tests.helpers.step_programs import programs_of_steps
from tests.helpers.traced_steps import NETWORKS, SMALL, state_of, task_and_data

pytestmark = pytest.mark.tpu

REPLICAS = 4

OPTIONS = {
    "r1": ("pix2pix", ["NORM = 'instance'", "regularisation.Regularisation.r1 = 0.1"]),
    "spectral norm, DiffAugment": (
        "pix2pix",
        [
            "regularisation.Regularisation.spectral_norm = True",
            "regularisation.Regularisation.diff_augment = ('colour', 'translation', 'cutout')",
        ],
    ),
    "wgan_gp": ("pix2pix", ["NORM = 'instance'", "pix2pix.Pix2Pix.gan_loss = 'wgan_gp'"]),
    "top-k, feature matching, average": (
        "pix2pix",
        [
            "pix2pix.Pix2Pix.top_k = 0.5",
            "pix2pix.Pix2Pix.feature_matching_weight = 10.0",
            "pix2pix.Pix2Pix.ema_decay = 0.999",
        ],
    ),
    "moving statistics": ("pix2pix", ["pix2pix.Pix2Pix.inference_norm = 'moving_statistics'"]),
}


def steps(task, data, **options):
    return programs_of_steps(task, data, replicas=REPLICAS, platform="TPU", **options)


def lowered(programs):
    """HLO of each program by its name, the first of each name."""
    return [(program.name.decode(), lower(program, "TPU")) for program in programs]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SMALL)
def test_every_task(name, precision):
    set_precision(precision)
    task, data = task_and_data(name)
    hlo = dict(lowered(steps(task, data)))
    (step,) = hlo.values()
    assert "all-reduce" in step
    assert ("bf16" in step) == (precision == "bfloat16")


@pytest.mark.parametrize("option", OPTIONS)
def test_options(option):
    name, params = OPTIONS[option]
    task, data = task_and_data(name, params)
    programs = lowered(steps(task, data))
    assert len(programs) == 1 + (option == "r1")  # with R1 due and without


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_accumulation(name):
    task, data = task_and_data(name)
    programs = steps(task, data, largest_micro_batch=1, measure_noise=True, undo_non_finite=True)
    names = " ".join(name for name, _ in lowered(programs))
    for part in ("_replica_pass", "_join", "_finish", "_restore"):
        assert part in names


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan", "colourisation", "super_resolution"])
def test_evaluation(name):
    task, data = task_and_data(name)
    strategy = Recorder(REPLICAS, platform="TPU")
    networks = state_of(task, data, strategy).evaluation_networks
    evaluator = Evaluator(task=task, devices=devices_of(strategy), data=data, networks=networks)
    batch = {name: tf.TensorSpec([3, *spec.shape], spec.dtype) for name, spec in data.example_spec.items()}
    batch |= {"name": tf.TensorSpec([3, 0], tf.uint8), "position": tf.TensorSpec([3], tf.int32)}
    evaluator._translator._translate.get_concrete_function(batch)
    ((_, hlo),) = lowered(strategy.programs)
    assert "u8[3,64,64,3]" in hlo


class _Refusable(Pix2Pix):
    """Its discriminator's loss does what a TPU cannot."""

    def __init__(self, does):
        super().__init__(generator="unet_64", **NETWORKS)
        self.does = does

    def discriminator_loss(self, step):
        terms = super().discriminator_loss(step)
        return {name: value + self.does(value) for name, value in terms.items()}


def test_lifting_variables_changes_no_value():
    weight, m, v = (tf.Variable(tf.fill([2], value)) for value in (1.0, 0.0, 0.5))

    def program(x):
        def body(i, total):
            weight.assign_add(x * tf.cast(i, tf.float32))
            return i + 1, total + weight[0]

        def adam():
            scalars = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "beta1_power": 0.9, "beta2_power": 0.99}
            handles = {"var": weight.handle, "m": m.handle, "v": v.handle}
            tf.raw_ops.ResourceApplyAdam(**handles, **scalars, epsilon=1e-3, grad=x)
            return tf.constant(True)

        _, total = tf.while_loop(lambda i, _: i < 3, body, (0, tf.constant(0.0)))
        tf.cond(total > 0, adam, lambda: tf.constant(False))
        m.scatter_update(tf.IndexedSlices(tf.constant([7.0]), tf.constant([1])))
        return tf.switch_case(tf.cast(x[0], tf.int32), [lambda: total, lambda: v.assign_sub(x)[1] + total])

    x = tf.constant([1.0, -2.0])
    concrete = tf.function(program, autograph=False).get_concrete_function(x)
    variables = [
        next(variable for variable in (weight, m, v) if variable.handle is handle)
        for handle in concrete.captured_inputs
    ]
    results, after = tf.function(lifted(concrete), autograph=False)(x, *(w.read_value() for w in variables))
    np.testing.assert_allclose(results[0], concrete(x), rtol=1e-6)
    for variable, value in zip(variables, after, strict=True):
        np.testing.assert_allclose(value, variable, rtol=1e-6)


REFUSED = {
    "EagerPyFunc": lambda x: tf.ensure_shape(tf.py_function(lambda v: 0 * v, [x], x.dtype), x.shape),
    "FractionalMaxPool": lambda x: tf.nn.fractional_max_pool(
        tf.broadcast_to(x[0], [1, 4, 4, 1]), 1.5, seed=1
    )[0][0, 0, 0, 0],
    # There is a kernel, but none for a shape that values decide.
    "compile-time constant": lambda x: tf.reduce_sum(tf.ones([tf.cast(x[0], tf.int32)], x.dtype)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_tpu_cannot_do_is_refused_with_operation_and_phase(reason):
    _, data = task_and_data("pix2pix")
    with pytest.raises(Refused, match=reason) as refused:
        lowered(steps(_Refusable(REFUSED[reason]), data))
    assert "discriminator/" in str(refused.value)


def test_an_operation_on_a_variable_without_a_kernel_is_refused(monkeypatch):
    counter = tf.Variable(0)

    @tf.function(autograph=False)
    def program():
        return tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=3, T=tf.int32)

    with pytest.raises(Refused, match="of which there is no rule"):
        lower(program.get_concrete_function(), "TPU")
    monkeypatch.setitem(lowering._ON_VARIABLES, "ResourceCountUpTo", lambda op, cell: [cell.value])
    with pytest.raises(Refused, match="No registered 'ResourceCountUpTo'"):
        lower(program.get_concrete_function(), "TPU")
