"""Every phase of every task, forward, backward and update, becomes a TPU program: TensorFlow's TPU build."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling
from engine.distribution.devices import devices_of
from engine.distribution.precision import set_precision
from engine.evaluation.evaluator import Evaluator
from engine.gin_config.loader import load_experiment
from engine.inner_loop.train_loop import TrainLoop
from engine.inner_loop.train_state import build_state
from models.pix2pix import Pix2Pix
from tests.helpers import lowering
from tests.helpers.lowering import Recorder, Refused, lifted, lower

pytestmark = pytest.mark.tpu

SIZE = 64

REPLICAS = 4

_NETWORKS = {"generator_filters": 4, "discriminator_filters": 4}
_PIX2PIX = {"pix2pix.Pix2Pix": _NETWORKS | {"generator": "unet_64"}}
_EDSR = {"pix2pix.Pix2Pix": _NETWORKS}
_CUT = {
    "cut.Cut": _NETWORKS | {"generator": "resnet_6blocks"},
    "patch_nce.PatchNce": {"width": 8},
}

SMALL = {
    "supervised": {"supervised.Supervised": {"generator": "unet_64", "generator_filters": 4}},
    "pix2pix": _PIX2PIX,
    "super_resolution": {"super_resolution.SuperResolution": _NETWORKS | {"blocks": 1}},
    "cyclegan": {"cyclegan.CycleGan": _NETWORKS | {"generator": "resnet_6blocks"}},
    "colourisation": {"colourisation.Colourisation": _NETWORKS | {"generator": "unet_64"}},
    "bicycle_gan": {
        "latent_networks.LatentNetworks": {
            "generator": "unet_64",
            "encoder": "resnet_64",
            "generator_filters": 4,
            "encoder_filters": 4,
        },
        "scaled_discriminators.ScaledDiscriminators": {"filters": 4},
    },
    "cut": _CUT,
    "fastcut": _CUT,
    "denoising": _EDSR,
    "codec": _EDSR,
}

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


def task_and_data(name, params=()):
    """The task of a gin file with small networks, and what the engine asks of its data."""
    small = [
        f"{bound}.{key} = {value!r}" for bound, values in SMALL[name].items() for key, value in values.items()
    ]
    experiment, _ = load_experiment(gin_files=[f"gin/{name}.gin"], gin_params=[*small, *params])
    data = experiment.data
    spec = {
        "input": tf.TensorSpec([SIZE // getattr(data, "downscale", 1)] * 2 + [3], tf.float32),
        "target": tf.TensorSpec([SIZE, SIZE, 3], tf.float32),
    }
    known = {name: getattr(data, name) for name in ("is_paired", "colour_space")}
    return experiment.task, types.SimpleNamespace(example_spec=spec, **known)


def with_names(task):
    """The task; the names of its operations, and of their gradients, have "forward" or the phase in them."""

    def named(name, fn):
        def in_scope(step):
            with tf.name_scope(name):
                return fn(step)

        return in_scope

    phases = [dataclasses.replace(p, loss=named(p.name, p.loss)) for p in task.phases()]
    task.phases, task.forward = lambda: tuple(phases), named("forward", task.forward)
    return task


class _Traced(Exception):
    pass


def programs_of_steps(task, data, *, largest_micro_batch=None, measure_noise=False, undo_non_finite=False):
    """What the engine's compiled loop gives to `strategy.run`, for every pattern of phases that are due."""
    strategy, task = Recorder(REPLICAS), with_names(task)
    # One example less than there are rows: the last replica, or micro-batch, is padded.
    plan = BatchLayout(
        global_batch=2 * REPLICAS - 1,
        replicas=REPLICAS,
        largest_micro_batch=largest_micro_batch,
        static_shapes=True,
    )
    loop = TrainLoop(
        task=task,
        devices=devices_of(strategy),
        train_state=state_of(task, data, strategy, noise={"combine_steps": True} if measure_noise else None),
        scaling=BatchScaling(examples_per_epoch=100, first_batch=plan.global_batch, total_examples=20_000),
        seed=0,
        undo_non_finite=undo_non_finite,
    )
    compiled = loop._loop

    def trace_only(*args):
        compiled.get_concrete_function(*args)
        raise _Traced

    loop._loop = trace_only
    batch = {
        name: tf.zeros([plan.micro_batch * plan.accumulation, *spec.shape], spec.dtype)
        for name, spec in data.example_spec.items()
    }
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    with pytest.raises(_Traced):
        loop.run(iterator, num_steps=1, step=0, examples=0, layout=plan)
    return strategy.programs


def state_of(task, data, strategy, noise=None):
    return build_state(
        task,
        data.example_spec,
        strategy=strategy,
        seed=0,
        initial_weights=None,
        outer_loop_state={},
        noise_settings=noise,
    )


def lowered(programs):
    """HLO of each program by its name, the first of each name."""
    return [(program.name.decode(), lower(program)) for program in programs]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SMALL)
def test_every_task(name, precision):
    set_precision(precision)
    task, data = task_and_data(name)
    hlo = dict(lowered(programs_of_steps(task, data)))
    (step,) = hlo.values()
    assert "all-reduce" in step
    assert ("bf16" in step) == (precision == "bfloat16")


@pytest.mark.parametrize("option", OPTIONS)
def test_options(option):
    name, params = OPTIONS[option]
    task, data = task_and_data(name, params)
    programs = lowered(programs_of_steps(task, data))
    assert len(programs) == 1 + (option == "r1")  # with R1 due and without


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_accumulation(name):
    task, data = task_and_data(name)
    programs = programs_of_steps(task, data, largest_micro_batch=1, measure_noise=True, undo_non_finite=True)
    names = " ".join(name for name, _ in lowered(programs))
    for part in ("_replica_pass", "_join", "_finish", "_restore"):
        assert part in names


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan", "colourisation", "super_resolution"])
def test_evaluation(name):
    task, data = task_and_data(name)
    strategy = Recorder(REPLICAS)
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
        super().__init__(generator="unet_64", **_NETWORKS)
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
        lowered(programs_of_steps(_Refusable(REFUSED[reason]), data))
    assert "discriminator/" in str(refused.value)


def test_an_operation_on_a_variable_without_a_kernel_is_refused(monkeypatch):
    counter = tf.Variable(0)

    @tf.function(autograph=False)
    def program():
        return tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=3, T=tf.int32)

    with pytest.raises(Refused, match="of which there is no rule"):
        lower(program.get_concrete_function())
    monkeypatch.setitem(lowering._ON_VARIABLES, "ResourceCountUpTo", lambda op, cell: [cell.value])
    with pytest.raises(Refused, match="No registered 'ResourceCountUpTo'"):
        lower(program.get_concrete_function())
