"""The reference's weights in our networks and back: all of them, or an error with a list."""

from pathlib import Path

import keras
import numpy as np
import pytest

from engine.errors import ConfigurationError
from models.networks.generators import REFERENCE_GENERATORS, build_generator
from models.networks.patchgan import patchgan
from models.pytorch.architecture import Architecture, architecture_of_file, architecture_of_model
from models.pytorch.state_dict_file import read_state_dict, write_state_dict
from models.pytorch.weights import (
    fitting_weights,
    load_generator,
    reference_arrays,
    save_reference,
    set_weights,
)
from models.torch_weights import TorchWeights

GOLDENS = Path(__file__).parents[2] / "goldens"
NETWORKS = {  # (run, its network) -> architecture
    ("pix2pix_unet128_batch", "G"): Architecture(family="unet", depth=7, norm="batch"),
    ("pix2pix_unet128_batch", "D"): Architecture(family="patchgan", depth=3, norm="batch"),
    ("pix2pix_unet128_instance_lsgan", "G"): Architecture(family="unet", depth=7, norm="instance"),
    ("pix2pix_unet128_instance_lsgan", "D"): Architecture(family="patchgan", depth=3, norm="instance"),
    ("cyclegan_resnet6_instance", "G_B"): Architecture(family="resnet", depth=6, norm="instance"),
    ("cyclegan_resnet6_instance", "D_A"): Architecture(family="patchgan", depth=3, norm="instance"),
}


def reference(run, net):
    """The initial state dict of the reference, with `num_batches_tracked`."""
    with np.load(GOLDENS / f"{run}_initial_weights.npz") as arrays:
        found = {name.removeprefix(f"{net}/"): arrays[name] for name in arrays if name.startswith(f"{net}/")}
    assert found
    return found


def model_of(architecture, *, filters=4, **kwargs):
    if architecture.family == "patchgan":
        channels = 3 if kwargs.pop("unconditional", False) else 6
        return patchgan(name="D", input_channels=channels, filters=filters, norm=architecture.norm)
    return build_generator(
        architecture.network,
        name="G",
        input_channels=3,
        output_channels=3,
        filters=filters,
        norm=architecture.norm,
        **{"dropout": False} | kwargs,
    )


def refusal(function, *arguments, **kwargs):
    with pytest.raises(ConfigurationError) as error:
        function(*arguments, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("run, net", NETWORKS)
def test_the_references_networks_go_in_and_come_out_as_they_were(tmp_path, run, net):
    arrays, architecture = reference(run, net), NETWORKS[run, net]
    assert architecture_of_file({name: array.shape for name, array in arrays.items()}) == architecture
    model = model_of(architecture, unconditional=True) if net == "D_A" else model_of(architecture)
    assert architecture_of_model(model) == architecture
    set_weights(model, fitting_weights(model, arrays, where="file"))
    save_reference(model, str(tmp_path / "back.pth"))
    back = read_state_dict(str(tmp_path / "back.pth"))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype, name
        # A count of steps that the reference never uses, and we do not store.
        array = np.array(0) if name.endswith("num_batches_tracked") else array
        np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize("norm_mode", ["batch_statistics", "moving_statistics"])
@pytest.mark.parametrize(
    "golden, run, net, network",
    [
        ("translate_unet128", "pix2pix_unet128_batch", "G", "unet_128"),
        ("translate_resnet6", "cyclegan_resnet6_instance", "G_A", "resnet_6blocks"),
    ],
)
def test_a_generator_built_from_its_file_alone(tmp_path, golden, run, net, network, norm_mode):
    path = str(tmp_path / "net_G.pth")
    write_state_dict(path, reference(run, net))
    name, model = load_generator(path, inference_norm=norm_mode)
    assert name == network == load_generator(path, network=network)[0]
    with np.load(GOLDENS / f"{golden}.npz") as data:
        x = data["input"].astype(np.float32)[np.newaxis] / 127.5 - 1
        np.testing.assert_allclose(model(x, training=False)[0], data[norm_mode], rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("network", REFERENCE_GENERATORS)
@pytest.mark.parametrize("dropout", [False, True])
def test_every_generator_is_recognised(tmp_path, network, norm, dropout):
    model = build_generator(
        network, name="G", input_channels=2, output_channels=1, filters=3, norm=norm, dropout=dropout
    )
    arrays = reference_arrays(model)
    architecture = architecture_of_file({name: array.shape for name, array in arrays.items()})
    assert (architecture.network, architecture.norm) == (network, norm)
    assert architecture.dropout == (dropout and architecture.family == "resnet")
    assert architecture.widths({name: array.shape for name, array in arrays.items()}) == {
        "filters": 3,
        "input_channels": 2,
        "output_channels": 1,
    }
    for path, weight in fitting_weights(model, arrays, where="file").items():
        own = next(own for own in model.weights if own.path == path)
        np.testing.assert_array_equal(own.numpy(), weight, err_msg=path)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_every_discriminator_is_recognised(norm):
    for model, family, depth in (
        (patchgan(name="D", input_channels=3, filters=2, layers=1, norm=norm), "patchgan", 1),
        (patchgan(name="D", input_channels=3, filters=2, layers=4, norm=norm), "patchgan", 4),
    ):
        arrays = reference_arrays(model)
        architecture = architecture_of_file({name: array.shape for name, array in arrays.items()})
        assert (
            architecture
            == architecture_of_model(model)
            == Architecture(family=family, depth=depth, norm=norm)
        )
        assert fitting_weights(model, arrays, where="file").keys() == {w.path for w in model.weights}


def test_dropout_changes_only_numbers_in_names():
    kwargs = {"input_channels": 3, "output_channels": 3, "filters": 2, "norm": "batch"}
    without, within = (
        build_generator("resnet_6blocks", name="G", dropout=dropout, **kwargs) for dropout in (False, True)
    )
    assert "model.10.conv_block.5.weight" in reference_arrays(without)
    assert "model.10.conv_block.6.running_mean" in reference_arrays(without)
    assert "model.10.conv_block.6.weight" in reference_arrays(within)
    assert "model.10.conv_block.7.running_mean" in reference_arrays(within)
    set_weights(within, fitting_weights(within, reference_arrays(without), where="file"))
    x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(within(x, training=False), without(x, training=False))


def test_without_norm_the_reference_has_no_biases():
    model = model_of(Architecture(family="unet", depth=7, norm="none"), filters=2)
    arrays = reference_arrays(model)
    assert {name for name in arrays if name.endswith(".bias")} == {"model.model.3.bias"}
    bias = model.get_layer("down_3_conv").bias
    bias.assign(bias.numpy() + 1)
    assert "down_3_conv/bias" in refusal(reference_arrays, model)
    set_weights(model, fitting_weights(model, arrays, where="file"))
    assert not np.any(bias.numpy())


def test_statistics_that_old_instance_norms_stored_are_ignored():
    arrays = reference("cyclegan_resnet6_instance", "G_A")
    old = arrays | {"model.2.running_mean": np.zeros(4), "model.2.num_batches_tracked": np.array(0)}
    model = model_of(NETWORKS["cyclegan_resnet6_instance", "G_B"])
    set_weights(model, fitting_weights(model, old, where="file"))
    np.testing.assert_array_equal(reference_arrays(model)["model.1.weight"], arrays["model.1.weight"])


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


DEEP = "model.model.1.model.3.model.3.model.1.weight"


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda a: without(a, DEEP, "model.model.3.bias"), f"missing: model.model.3.bias, {DEEP}"),
        (lambda a: without(a, "model.model.0.weight"), "missing: model.model.0.weight"),
        (lambda a: a | {"head.weight": np.zeros(3), "x": np.zeros(1)}, "too many: head.weight, x"),
        (
            lambda a: a | {DEEP: np.zeros((16, 9, 4, 4), np.float32)},
            f"of another shape: {DEEP} [16, 9, 4, 4] for [32, 16, 4, 4]",
        ),
        (lambda a: a | {DEEP: a[DEEP] * np.nan}, f"not finite in {DEEP}"),
        (
            lambda a: reference("cyclegan_resnet6_instance", "G_A"),
            "resnet_6blocks with instance norm, not unet_128",
        ),
        (
            lambda a: reference("cyclegan_resnet6_instance", "G_A"),
            "missing: model.model.0.weight, ",
        ),
        (lambda a: reference("cyclegan_resnet6_instance", "G_A"), "too many: model.1.weight, model.1.bias"),
        (
            lambda a: reference("pix2pix_unet128_batch", "D"),
            "patchgan of 3 layers with batch norm, not unet_128",
        ),
        (lambda a: {"fc.weight": np.zeros(3)}, "too many: fc.weight"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_list(tmp_path, generator, change, expected):
    arrays = change(reference("pix2pix_unet128_batch", "G"))
    if generator:
        path = str(tmp_path / "net_G.pth")
        write_state_dict(path, arrays)
        message = refusal(load_generator, path, network="unet_128")
    else:
        path = "net_G.pth"
        model = model_of(NETWORKS["pix2pix_unet128_batch", "G"])
        message = refusal(fitting_weights, model, arrays, where=path)
    assert message.startswith(path)
    assert expected in message


def test_a_file_that_claims_a_huge_width_builds_nothing(tmp_path):
    arrays = reference("pix2pix_unet128_batch", "G")
    path = str(tmp_path / "net_G.pth")
    for shape, expected in (
        ((200_000, 3, 1, 1), "is not that of 200000 filters"),
        ((4, 3), "is no convolution"),
        ((0, 3, 4, 4), "is no convolution"),
    ):
        write_state_dict(path, arrays | {"model.model.0.weight": np.zeros(shape, np.float32)})
        message = refusal(load_generator, path)
        assert message.startswith(path) and expected in message


def test_another_norm_or_width_is_refused():
    arrays = reference("pix2pix_unet128_instance_lsgan", "G")
    model = model_of(Architecture(family="unet", depth=7, norm="none"))  # its parameters have the same shapes
    assert "holds unet_128 with instance norm, not unet_128 without norm" in refusal(
        fitting_weights, model, arrays, where="file"
    )
    model = model_of(Architecture(family="unet", depth=7, norm="instance"), filters=8)
    message = refusal(fitting_weights, model, arrays, where="file")
    assert "model.model.0.weight [4, 3, 4, 4] for [8, 3, 4, 4]" in message
    assert "model.model.3.weight [8, 3, 4, 4] for [16, 3, 4, 4]" in message


def test_a_file_whose_network_is_not_here_is_refused(tmp_path):
    path = str(tmp_path / "net.pth")
    write_state_dict(path, reference("pix2pix_unet128_batch", "D"))
    message = refusal(load_generator, path)
    assert "patchgan of 3 layers" in message and "unet_256" in message
    assert "--network=unet_512: unknown" in refusal(load_generator, path, network="unet_512")
    write_state_dict(path, {"x": np.zeros(2)})
    assert "no network of the reference" in refusal(load_generator, path)


def test_networks_without_a_counterpart_are_refused():
    image = keras.Input((8, 8, 3))
    stranger = keras.Model(image, keras.layers.Conv2D(3, 3, name="first_conv")(image), name="mine")
    for model in (stranger, keras.Model(image, keras.layers.Conv2D(3, 3)(image), name="mine")):
        assert "mine: the reference has no such network" in refusal(reference_arrays, model)
        assert "mine: the reference has no such network" in refusal(fitting_weights, model, {}, where="file")


def test_weights_to_start_from_are_set_all_or_none(tmp_path):
    run = "pix2pix_unet128_batch"
    files = {"generator": str(tmp_path / "G.pth"), "discriminator": str(tmp_path / "D.pth")}
    write_state_dict(files["generator"], reference(run, "G"))
    write_state_dict(files["discriminator"], without(reference(run, "D"), "model.0.bias"))
    networks = {"generator": model_of(NETWORKS[run, "G"]), "discriminator": model_of(NETWORKS[run, "D"])}
    before = networks["generator"].get_weights()
    message = refusal(TorchWeights(files=files), networks)
    assert message.startswith(files["discriminator"]) and "missing: model.0.bias" in message
    for ours, old in zip(networks["generator"].get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)

    TorchWeights(files={"generator": files["generator"]})(networks)
    for name, array in reference_arrays(networks["generator"]).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, reference(run, "G")[name], err_msg=name)
    TorchWeights()(networks)

    message = refusal(TorchWeights(files={"critic": files["generator"]}), networks)
    assert "'critic' is no network of the task; use one of generator, discriminator" in message
    assert "must map names of networks to files" in refusal(TorchWeights, files={"generator": 3})
