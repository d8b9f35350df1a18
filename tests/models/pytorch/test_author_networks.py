"""Weights of the authors of CUT and BicycleGAN in our networks give PyTorch's outputs.

tests/helpers/author_networks.py has made the goldens.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from engine.inference.torch_translator import translator_of_torch_file
from models.latent_networks import resnet_encoder
from models.networks.conditioning import SideShapes
from models.networks.generators import build_generator
from models.networks.patchgan import patchgan
from models.patch_nce import PatchNce
from models.pytorch.state_dict_file import write_state_dict
from models.pytorch.weights import fitting_weights, load_generator, set_weights
from models.scaled_discriminators import ScaledDiscriminators
from models.torch_weights import TorchWeights

GOLDEN = Path(__file__).parents[2] / "goldens" / "author_networks.npz"
CODE = 3


def golden(name):
    """The parameters of a network as float32, and its outputs at every third row and column."""
    with np.load(GOLDEN) as arrays:
        state = {
            key.removeprefix(f"{name}/state/"): arrays[key].astype(np.float32)
            for key in arrays
            if key.startswith(f"{name}/state/")
        }
        outputs = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}/output_")]
    assert state and outputs
    return state, outputs


def given(*shape):
    """The inputs of the goldens, in PyTorch's layout."""
    numbers = np.arange(math.prod(shape))
    return (np.sin(numbers * 1.7) * np.cos(numbers * 0.013)).reshape(shape).astype(np.float32)


def images(size):
    return np.moveaxis(given(2, 3, size, size), 1, -1)


def unet(tiled_at, *, code=CODE, **kwargs):
    settings = {"network": "unet_64", "name": "generator", "input_channels": 3, "output_channels": 3}
    settings |= {"filters": 1, "norm": "instance", "dropout": False}
    return build_generator(**settings | kwargs, side=SideShapes(tiled=code, tiled_at=tiled_at))


def encoder(**kwargs):
    settings = {"name": "encoder", "input_channels": 3, "latent_size": CODE, "downsamplings": 3, "filters": 2}
    return resnet_encoder(**settings | kwargs)


def projector():
    """Of features with 3, 4 and 8 channels."""
    generator = build_generator(
        "resnet_6blocks",
        name="G",
        input_channels=3,
        output_channels=3,
        filters=2,
        norm="instance",
        dropout=False,
    )
    layers = ("first_pad", "down_1_conv", "block_1_sum")
    return PatchNce(layers=layers, width=6).projector(generator)


def scaled(scales=2, size=48):
    return ScaledDiscriminators(scales=scales, filters=2).build("encoded", (size, size, 3), (size, size, 3))


def cut_generator():
    return build_generator(
        "resnet_6blocks",
        name="G",
        input_channels=3,
        output_channels=3,
        filters=1,
        norm="instance",
        dropout=False,
    )


NETWORKS = {  # golden -> ours, its inputs
    "cut_generator": (cut_generator, lambda: images(16)),
    "cut_discriminator": (
        lambda: patchgan(name="D", input_channels=3, filters=1, norm="instance"),
        lambda: images(32),
    ),
    "cut_projector": (projector, lambda: [given(2, 5, width) for width in (3, 4, 8)]),
    "bicycle_add_all": (lambda: unet("all"), lambda: [images(64), given(2, CODE)]),
    "bicycle_add_input": (lambda: unet("input"), lambda: [images(64), given(2, CODE)]),
    "bicycle_encoder": (encoder, lambda: images(64)),
}


def assert_outputs(network, inputs, expected):
    found = network(inputs, training=False)
    found = found if isinstance(found, list) else [found]
    for ours, theirs in zip(found, expected, strict=True):
        ours = np.asarray(ours)
        if ours.ndim == 4:
            ours, theirs = ours[:, ::3, ::3], np.moveaxis(theirs, 1, -1)
        assert np.abs(theirs).max() > 1e-2  # the network says something
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_compute_what_theirs_do(tmp_path, name):
    state, expected = golden(name)
    build, inputs = NETWORKS[name]
    network = build()
    path = str(tmp_path / "net.pth")
    write_state_dict(path, state)
    TorchWeights(files={"network": path})({"network": network})
    assert_outputs(network, inputs(), expected)
    again = build()
    TorchWeights(files={"network": path}, partial=True)({"network": again})
    assert_outputs(again, inputs(), expected)


def test_one_file_holds_the_discriminators_of_all_scales(tmp_path):
    state, expected = golden("bicycle_discriminators")
    older = {name.replace("model_", "model"): array for name, array in state.items()}  # before 2020
    for n, arrays in enumerate((state, older)):
        path = str(tmp_path / f"net_D_{n}.pth")
        write_state_dict(path, arrays)
        networks = scaled()
        TorchWeights(files=dict.fromkeys(networks, path))(networks)
        for network, outputs in zip(networks.values(), expected, strict=True):
            assert_outputs(network, images(48), [outputs])
    with pytest.raises(ConfigurationError, match="none at 1/4 of the size of pictures"):
        fitting_weights(scaled(3, size=96)["encoded_discriminator_3"], state, where="net_D.pth")


def test_a_translation_with_cuts_generator(tmp_path):
    state, expected = golden("cut_generator")
    path = str(tmp_path / "latest_net_G.pth")
    write_state_dict(path, state)
    name, model = load_generator(path)
    assert name == "resnet_6blocks"
    assert_outputs(model, images(16), expected)


def test_a_translation_with_bicycle_gans_generator(tmp_path):
    state, expected = golden("bicycle_add_all")
    path = str(tmp_path / "latest_net_G.pth")
    write_state_dict(path, state)
    name, model = load_generator(path, network="unet_64")
    assert name == "unet_64"
    assert_outputs(model, [images(64), given(2, CODE)], expected)
    translator = translator_of_torch_file(path, network=None, norm_mode=None)
    assert (translator.latent_size, translator.input.channels) == (CODE, 3)
    codes = tf.constant(given(2, CODE))
    np.testing.assert_allclose(
        translator.translate(tf.constant(images(64)), None, codes, None),
        model([images(64), given(2, CODE)]),
        rtol=0,
        atol=1e-5,
    )
    usual = translator.translate(tf.constant(images(64)), None, None, None)
    np.testing.assert_allclose(usual, model([images(64), np.zeros((2, CODE))]), rtol=0, atol=1e-5)
    with pytest.raises(ConfigurationError, match="BicycleGAN's generator unet_64, not unet_256"):
        load_generator(path, network="unet_256")
    huge = state | {"model.down.0.weight": np.zeros((200_000, 6, 1, 1), np.float32)}
    write_state_dict(path, huge)
    with pytest.raises(ConfigurationError, match="no complete generator of BicycleGAN"):
        load_generator(path)


def refusal(network, state):
    with pytest.raises(ConfigurationError) as error:
        fitting_weights(network, state, where="net.pth")
    assert "\n" not in str(error.value) and str(error.value).startswith("net.pth: ")
    return str(error.value)


def test_networks_of_another_function_are_refused_by_name(tmp_path):
    blur = np.ones((4, 1, 3, 3), np.float32)
    antialiased = golden("cut_generator")[0] | {"model.7.filt": blur}
    message = refusal(cut_generator(), antialiased)
    assert "CUT with antialiasing (model.7.filt" in message and "--no_antialias --no_antialias_up" in message
    path = str(tmp_path / "net.pth")
    write_state_dict(path, antialiased)
    with pytest.raises(ConfigurationError, match="CUT with antialiasing"):
        load_generator(path)
    with pytest.raises(ConfigurationError, match="CUT with antialiasing"):
        TorchWeights(files={"generator": path}, partial=True)({"generator": cut_generator()})

    norm = {"norm.weight": np.ones(8, np.float32)}
    for name, network, what in (
        ("bicycle_add_all", unet("all"), "generator with batch norm"),
        ("bicycle_add_input", unet("input"), "generator with batch norm"),
        ("bicycle_encoder", encoder(), "encoder with batch norm"),
        ("bicycle_discriminators", scaled()["encoded_discriminator_1"], "discriminators with batch norm"),
    ):
        assert what in refusal(network, golden(name)[0] | norm)
    bilinear = {"model.up.3.weight": np.ones((3, 2, 3, 3))}
    assert "--upsample bilinear" in refusal(unet("all"), golden("bicycle_add_all")[0] | bilinear)
    bilinear = {"model.model.5.weight": np.ones((3, 2, 3, 3))}
    assert "--upsample bilinear" in refusal(unet("input"), golden("bicycle_add_input")[0] | bilinear)
    shifted = {"model.model.0.weight": np.ones((1, 6, 4, 4)), "model.model.1.model.2.model.1.weight": blur}
    assert "no norm" in refusal(unet("input"), shifted)
    plain = {"fc.0.weight": np.ones((3, 8)), "conv.0.weight": np.ones((2, 3, 4, 4))}
    assert "plain encoder (E_NLayers" in refusal(encoder(), plain)
    assert "encoder with instance norm, but encoder has none" in refusal(
        encoder(norm="none"), golden("bicycle_encoder")[0]
    )


def test_incomplete_and_other_networks_of_theirs_are_refused():
    state = golden("bicycle_encoder")[0]
    no_variance = {name: array for name, array in state.items() if not name.startswith("fcVar")}
    message = refusal(encoder(), no_variance)
    assert "holds BicycleGAN's encoder of 3 downsamplings (E_ResNet)" in message
    assert "missing: fcVar.0.weight, fcVar.0.bias" in message
    message = refusal(encoder(downsamplings=4), state)
    assert "not in it: block_3_conv_1/kernel" in message
    message = refusal(encoder(downsamplings=2), state)
    assert "too many: conv.2.conv.2.weight" in message
    message = refusal(encoder(filters=3), state)
    assert "of another shape: conv.0.weight [4, 4, 3, 2] for [4, 4, 3, 3]" in message
    state = golden("bicycle_add_all")[0]
    assert "G_Unet_add_all), which does not fit generator" in refusal(unet("input"), state)
    assert "unet_64 (G_Unet_add_all)" in refusal(unet("all", network="unet_32"), state)
    assert "of another shape: model.down.0.weight" in refusal(unet("all", code=2), state)
    broken = state | {"model.up.1.bias": state["model.up.1.bias"] * np.nan}
    assert "not finite: model.up.1.bias" in refusal(unet("all"), broken)
    assert "does not fit" in refusal(cut_generator(), golden("cut_projector")[0])
    set_weights(unet("all"), fitting_weights(unet("all"), state, where="net.pth"))
