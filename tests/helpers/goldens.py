"""What the reference (PyTorch, float32) computed with small networks, and those networks with its weights."""

import functools
from pathlib import Path

import numpy as np

from models.networks.generators import build_generator
from models.networks.patchgan import patchgan
from models.pytorch import parameter_names

GOLDENS = Path(__file__).parents[1] / "goldens"


TOLERANCE = 1e-3  # of the largest entry of each array


PIX2PIX_RUNS = {"pix2pix_unet128_batch": "batch", "pix2pix_unet128_instance_lsgan": "instance"}


UNET = parameter_names.unet_layers(downsamplings=7)


RESNET = parameter_names.resnet_layers(blocks=6, dropout=False)


PATCHGAN = parameter_names.patchgan_layers()


@functools.cache
def golden(name):
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def load_reference_weights(model, run, net, layers):
    """Sets every variable of the model; fails if one is left or a name has no place."""
    variables = {variable.path: variable for variable in model.variables}
    for name, array in golden(f"{run}_initial_weights").items():
        if not name.startswith(f"{net}/"):
            continue
        path = parameter_names.variable_path(name.removeprefix(f"{net}/"), layers)
        if path is not None:
            variables.pop(path).assign(parameter_names.to_keras_layout(array))
    assert {path for path in variables if "seed_generator" not in path} == set()


def generator(run, *, net="G", **kwargs):
    if run.startswith("cyclegan"):
        network, layers, norm = "resnet_6blocks", RESNET, "instance"
    else:
        network, layers, norm = "unet_128", UNET, PIX2PIX_RUNS[run]
    model = build_generator(
        network,
        name=net,
        input_channels=3,
        output_channels=3,
        filters=4,
        norm=norm,
        dropout=False,
        **kwargs,
    )
    load_reference_weights(model, run, net, layers)
    return model


def discriminator(run, *, net="D"):
    conditional = not run.startswith("cyclegan")
    model = patchgan(
        name=net,
        input_channels=6 if conditional else 3,
        filters=4,
        norm=PIX2PIX_RUNS.get(run, "instance"),
    )
    load_reference_weights(model, run, net, PATCHGAN)
    return model


def relative_error(ours, theirs):
    return float(np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs)))


def assert_close(ours, theirs, tolerance=TOLERANCE):
    assert np.shape(ours) == theirs.shape
    assert relative_error(ours, theirs) < tolerance


def assert_gradients(data, net, layers, model, gradients):
    ours = {v.path: g for v, g in zip(model.trainable_variables, gradients, strict=True)}
    prefix = f"grad0/{net}/"
    theirs = {
        parameter_names.variable_path(name.removeprefix(prefix), layers): array
        for name, array in data.items()
        if name.startswith(prefix)
    }
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(array).max() for array in theirs.values())
    for path, array in theirs.items():
        if np.abs(array).max() < 1e-6 * largest:
            # A bias before an instance norm: zero but for rounding.
            assert np.abs(ours[path]).max() < 1e-5 * largest, path
        else:
            error = relative_error(ours[path], parameter_names.to_keras_layout(array))
            assert error < TOLERANCE, f"{path}: {error}"
