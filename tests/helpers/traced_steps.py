"""Traces the training step of a task, as `TrainLoop` gives it to `strategy.run`, and runs nothing."""

import contextlib
import types

import tensorflow as tf

from engine.batching.scaling_rules import BatchScaling
from engine.distribution.devices import devices_of
from engine.gin_config.loader import load_experiment
from engine.inner_loop.train_loop import TrainLoop
from engine.inner_loop.train_state import build_state

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
"""Settings that make the networks of a gin file small."""


def task_and_data(name, params=(), *, size=SIZE, small=True):
    """The task of a gin file, with small networks by default, and what the engine asks of its data."""
    settings = SMALL[name] if small else {}
    bindings = [
        f"{bound}.{key} = {value!r}" for bound, values in settings.items() for key, value in values.items()
    ]
    experiment, _ = load_experiment(gin_files=[f"gin/{name}.gin"], gin_params=[*bindings, *params])
    data = experiment.data
    spec = {
        "input": tf.TensorSpec([size // getattr(data, "downscale", 1)] * 2 + [3], tf.float32),
        "target": tf.TensorSpec([size, size, 3], tf.float32),
    }
    known = {name: getattr(data, name) for name in ("is_paired", "colour_space")}
    return experiment.task, types.SimpleNamespace(example_spec=spec, **known)


class _Traced(Exception):
    pass


def trace_steps(task, data, *, strategy, layout, measure_noise=False, **settings):
    """Traces the compiled loop for every pattern of phases that are due; returns the state."""
    state = state_of(task, data, strategy, noise={"combine_steps": True} if measure_noise else None)
    loop = TrainLoop(
        task=task,
        devices=devices_of(strategy),
        train_state=state,
        scaling=BatchScaling(examples_per_epoch=100, first_batch=layout.global_batch, total_examples=20_000),
        seed=0,
        **settings,
    )
    compiled = loop._loop

    def trace_only(*args):
        compiled.get_concrete_function(*args)
        raise _Traced

    loop._loop = trace_only
    batch = {
        name: tf.zeros([layout.micro_batch * layout.accumulation, *spec.shape], spec.dtype)
        for name, spec in data.example_spec.items()
    }
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    with contextlib.suppress(_Traced):
        loop.run(iterator, num_steps=1, step=0, examples=0, layout=layout)
    return state


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
