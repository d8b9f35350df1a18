"""Weights of a network of another shape: what fits is taken over, the first convolution adapted, and said."""

import numpy as np
import pytest

from engine.errors import ConfigurationError
from models.networks.generators import build_generator
from models.pytorch.weights import save_reference
from models.torch_weights import TorchWeights
from models.weight_transfer import WeightTransfer, adapt_input


def generator(network="unet_32", *, inputs=3, outputs=3, filters=2, norm="instance", seed=0):
    model = build_generator(
        network,
        name="generator",
        input_channels=inputs,
        output_channels=outputs,
        filters=filters,
        norm=norm,
        dropout=False,
    )
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.weights])
    return model


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def refusal(function, *arguments, **kwargs):
    with pytest.raises(ConfigurationError) as error:
        function(*arguments, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def images(channels, size=32, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (2, size, size, channels)).astype(np.float32)


@pytest.mark.parametrize("how", ["mean", "repeat"])
@pytest.mark.parametrize("old, new", [(3, 4), (3, 6), (1, 3), (3, 7), (3, 1), (4, 3)])
def test_the_sum_over_the_channels_stays(how, old, new):
    kernel = np.random.default_rng(0).normal(size=(4, 4, old, 5)).astype(np.float32)
    if how == "repeat" and new < old:
        message = refusal(adapt_input, kernel, new, how=how, where="x.pth: first")
        assert message.startswith(f"x.pth: first: has {old} input channels for {new}")
        return
    found = adapt_input(kernel, new, how=how)
    assert found.shape == (4, 4, new, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(2), kernel.sum(2), rtol=0, atol=1e-5)
    expected = {  # each new channel from the old ones, by hand
        "mean": kernel.mean(2, keepdims=True).repeat(new, 2) * old / new,
        "repeat": np.stack(
            [kernel[:, :, c % old] / len(range(c % old, new, old)) for c in range(new)], axis=2
        ),
    }[how]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_other_input_channels_give_the_same_pictures_where_they_say_nothing_new(tmp_path, capsys):
    old = generator(inputs=3)
    save_reference(old, str(tmp_path / "old.pth"))
    files = {"generator": str(tmp_path / "old.pth")}
    cases = {  # how, channels -> a picture for the old network, and the same for the new one
        ("mean", 1): (images(1).repeat(3, -1), images(1)),
        ("mean", 4): (images(1).repeat(3, -1), images(1).repeat(4, -1)),
        ("repeat", 6): (images(3), np.tile(images(3), 2)),
        ("repeat", 4): (images(3), np.concatenate([images(3), images(3)[..., :1]], -1)),
    }
    for (how, channels), (before, after) in cases.items():
        new = generator(inputs=channels, seed=1)
        TorchWeights(files=files, partial=True, input_channels=how)({"generator": new})
        np.testing.assert_allclose(new(after), old(before), rtol=0, atol=1e-5)
        told = capsys.readouterr().out
        count = len(old.weights)
        assert f"generator: {count} of {count} weights are those of {files['generator']}\n" in told
        words = {"mean": "mean of the channels", "repeat": "channels repeated"}[how]
        assert f"  adapted     down_1_conv/kernel  [4, 4, 3, 2] -> [4, 4, {channels}, 2], {words}\n" in told


def test_another_head_keeps_its_initial_values(tmp_path, capsys):
    old, new = generator(outputs=3), generator(outputs=1, seed=1)
    save_reference(old, str(tmp_path / "old.pth"))
    initial, stored = weights_of(new), weights_of(old)
    TorchWeights(files={"generator": str(tmp_path / "old.pth")}, partial=True)({"generator": new})
    for path, array in weights_of(new).items():
        expected = initial if path.startswith("up_1_conv/") else stored
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"generator: {len(initial) - 2} of {len(initial)} weights")
    assert "  not loaded  up_1_conv/kernel    [4, 4, 1, 4], there [4, 4, 3, 4]" in lines
    assert "  not loaded  up_1_conv/bias      [1], there [3]" in lines
    assert "  loaded      down_2_conv/kernel  [4, 4, 2, 4]" in lines
    assert len(lines) == 1 + len(initial)  # each weight once


def test_a_shallower_network_takes_the_levels_that_both_have(tmp_path, capsys):
    old, new = generator("resnet_9blocks", norm="batch"), generator("resnet_6blocks", norm="batch", seed=1)
    save_reference(old, str(tmp_path / "old.pth"))
    TorchWeights(files={"generator": str(tmp_path / "old.pth")}, partial=True)({"generator": new})
    for path, array in weights_of(new).items():
        np.testing.assert_array_equal(array, weights_of(old)[path], err_msg=path)
    told = capsys.readouterr().out
    assert "  not used    block_9_conv_2/kernel" in told and "block_6_conv_2/kernel" in told
    assert "not loaded" not in told


def test_only_some_weights():
    old, new = generator(), generator(seed=1)
    initial = weights_of(new)
    plan = WeightTransfer(only="down_*").plan(new, weights_of(old), where="old")
    assert weights_of(new).keys() == initial.keys()
    path = new.weights[0].path
    np.testing.assert_array_equal(weights_of(new)[path], initial[path])  # a plan changes nothing
    plan.apply()
    for path, array in weights_of(new).items():
        expected = weights_of(old) if path.startswith("down_") else initial
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    assert "has no weight named 'encoder_*'" in refusal(
        WeightTransfer(only="encoder_*").plan, new, weights_of(old), where="old"
    )


def test_without_partial_all_must_fit(tmp_path):
    old, new = generator(outputs=3), generator(outputs=1, seed=1)
    initial = weights_of(new)
    message = refusal(WeightTransfer().plan, new, weights_of(old), where="old")
    assert "up_1_conv/kernel [4, 4, 3, 4] for [4, 4, 1, 4]" in message and "partial = True" in message
    message = refusal(WeightTransfer(only="up_*").plan, new, weights_of(old), where="old")
    assert "up_1_conv/kernel" in message and "down" not in message
    surplus = weights_of(new) | {"head/bias": np.zeros(3)}
    assert "too many: head/bias" in refusal(WeightTransfer().plan, new, surplus, where="old")
    missing = {path: array for path, array in weights_of(new).items() if path != "up_2_conv/bias"}
    assert "missing or of another shape: up_2_conv/bias" in refusal(
        WeightTransfer().plan, new, missing, where="old"
    )
    save_reference(old, str(tmp_path / "old.pth"))
    strict = TorchWeights(files={"generator": str(tmp_path / "old.pth")})
    assert "of another shape: model.model.3.weight" in refusal(strict, {"generator": new})
    for path, array in weights_of(new).items():
        np.testing.assert_array_equal(array, initial[path])


def test_what_fits_nowhere(tmp_path):
    new = generator("resnet_6blocks")
    transfer = WeightTransfer(partial=True)
    message = refusal(transfer.plan, new, weights_of(generator("resnet_6blocks", filters=3)), where="old")
    assert message.startswith("old: no kernel of generator is in it with the same shape")
    assert "first_conv/kernel [7, 7, 3, 3] for [7, 7, 3, 2]" in message
    broken = weights_of(new) | {"down_2_conv/bias": np.full(8, np.nan)}
    assert "not finite in down_2_conv/bias" in refusal(transfer.plan, new, broken, where="old")
    assert "input_channels = 'first'" in refusal(WeightTransfer, input_channels="first")
    unknown = str(tmp_path / "x.pth")
    save_reference(generator(), unknown)
    assert "no kernel of generator" in refusal(
        TorchWeights(files={"generator": unknown}, partial=True), {"generator": new}
    )


def test_several_networks_take_all_or_none(tmp_path):
    good, bad = generator(seed=1), generator("resnet_6blocks", seed=2)
    save_reference(generator(), str(tmp_path / "unet.pth"))
    initial = weights_of(good)
    files = {"good": str(tmp_path / "unet.pth"), "bad": str(tmp_path / "unet.pth")}
    refusal(TorchWeights(files=files, partial=True), {"good": good, "bad": bad})
    for path, array in weights_of(good).items():
        np.testing.assert_array_equal(array, initial[path])
