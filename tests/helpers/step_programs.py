"""The programs that the engine gives to replicas for a step of a task of gin/, with small networks."""

import dataclasses
import types

import pytest
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.scaling_rules import BatchScaling
from engine.distribution.devices import devices_of
from engine.gin_config.loader import load_experiment
from engine.inner_loop.train_loop import TrainLoop
from engine.inner_loop.train_state import build_state
from tests.helpers.lowering import Recorder

SIZE = 64

NETWORKS = {"generator_filters": 4, "discriminator_filters": 4}
_PIX2PIX = {"pix2pix.Pix2Pix": NETWORKS | {"generator": "unet_64"}}
_EDSR = {"pix2pix.Pix2Pix": NETWORKS}
_CUT = {
    "cut.Cut": NETWORKS | {"generator": "resnet_6blocks"},
    "patch_nce.PatchNce": {"width": 8},
}

SMALL = {
    "supervised": {"supervised.Supervised": {"generator": "unet_64", "generator_filters": 4}},
    "pix2pix": _PIX2PIX,
    "super_resolution": {"super_resolution.SuperResolution": NETWORKS | {"blocks": 1}},
    "cyclegan": {"cyclegan.CycleGan": NETWORKS | {"generator": "resnet_6blocks"}},
    "colourisation": {"colourisation.Colourisation": NETWORKS | {"generator": "unet_64"}},
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


def programs_of_steps(
    task,
    data,
    *,
    replicas,
    platform,
    largest_micro_batch=None,
    measure_noise=False,
    undo_non_finite=False,
):
    """What the engine's compiled loop gives to `strategy.run`, for every pattern of phases that are due.

    `platform` is as for `Recorder`; the other settings are those of the engine. Each replica has two rows.
    """
    strategy, task = Recorder(replicas, platform=platform), with_names(task)
    # One example less than there are rows: the last replica, or micro-batch, is padded.
    plan = BatchLayout(
        global_batch=2 * replicas - 1,
        replicas=replicas,
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
