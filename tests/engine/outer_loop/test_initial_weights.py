"""A new run starts from the files it is told; one that goes on does not ask for them."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues

import engine.train
from engine.cli import program
from engine.errors import ConfigurationError
from engine.inference.restored_run import restore_run
from engine.run_weights import RunWeights
from models.networks.generators import build_generator
from models.pix2pix import Pix2Pix
from models.pytorch.weights import save_reference
from models.torch_weights import TorchWeights


@pytest.fixture
def generator_file(tmp_path):
    """A generator of the small runs here, with weights of its own."""
    model = build_generator(
        "unet_32", name="G", input_channels=3, output_channels=3, filters=2, norm="batch", dropout=True
    )
    random = np.random.default_rng(5)
    model.set_weights([random.normal(1, 0.1, weight.shape) for weight in model.weights])
    path = str(tmp_path / "mine_net_G.pth")
    save_reference(model, path)
    return path, model.get_weights()


class AveragedPix2Pix(Pix2Pix):
    """pix2pix that also keeps an average of its generator."""

    def phases(self):
        return tuple(dataclasses.replace(phase, ema_decay=0.5) for phase in super().phases())


def small(task):
    return task(generator="unet_32", generator_filters=2, discriminator_filters=2)


def assert_weights(network, expected, *, equal=True):
    for ours, weights in zip(network.weights, expected, strict=True):
        for copy in getattr(ours.value, "values", [ours.value]):  # on every replica
            if equal:
                np.testing.assert_array_equal(copy.numpy(), weights, err_msg=ours.path)
            else:
                assert np.any(copy.numpy() != weights), ours.path


@pytest.mark.parametrize("replicas", [1, 2])
def test_networks_and_averages_start_from_the_file(make_trainer, noise_pairs, generator_file, replicas):
    path, weights = generator_file
    settings = {"total_examples": 2, "cpu_replicas": replicas}
    trainer = make_trainer(
        small(AveragedPix2Pix),
        noise_pairs(size=32),
        initial_weights=TorchWeights(files={"generator": path}),
        **settings,
    )
    assert_weights(trainer.state.networks["generator"], weights)
    assert_weights(trainer.state.averaged["generator"], weights)
    chance = make_trainer(small(AveragedPix2Pix), noise_pairs(size=32), **settings)
    assert_weights(chance.state.averaged["generator"], chance.state.networks["generator"].get_weights())
    for state in (trainer.state, chance.state):  # what no file was given for
        assert_weights(state.networks["discriminator"], chance.state.networks["discriminator"].get_weights())


def test_a_file_in_the_home_directory(generator_file, monkeypatch):
    """No shell replaces the tilde of a gin setting."""
    path, weights = generator_file
    monkeypatch.setenv("HOME", os.path.dirname(path))
    model = build_generator(
        "unet_32", name="G", input_channels=3, output_channels=3, filters=2, norm="batch", dropout=True
    )
    TorchWeights(files={"generator": "~/mine_net_G.pth"})({"generator": model})
    assert_weights(model, weights)


def test_a_run_that_goes_on_keeps_its_own_weights(make_trainer, noise_pairs, generator_file, tmp_path):
    path, weights = generator_file
    settings = {
        "workdir": str(tmp_path / "run"),
        "initial_weights": TorchWeights(files={"generator": path}),
        "sample_every": 0,
    }
    first = make_trainer(small(Pix2Pix), noise_pairs(size=32), total_examples=1, **settings)
    first.run()
    assert_weights(first.state.networks["generator"], weights, equal=False)
    os.remove(path)
    again = make_trainer(small(Pix2Pix), noise_pairs(size=32), total_examples=2, **settings)
    assert again.restore() == 1
    assert_weights(again.state.networks["generator"], first.state.networks["generator"].get_weights())
    with pytest.raises(ConfigurationError, match="mine_net_G.pth: cannot be read"):
        make_trainer(
            small(Pix2Pix),
            noise_pairs(size=32),
            total_examples=2,
            **settings | {"workdir": str(tmp_path / "new")},
        )


def test_the_setting_of_a_configuration(capfd, synthetic_datasets, tmp_path, generator_file):
    path, _ = generator_file

    def train(setting, *flags):
        params = [
            f"DATA_DIR = {synthetic_datasets!r}",
            "LOAD_SIZE = 36",
            "CROP_SIZE = 32",
            "pix2pix.Pix2Pix.generator = 'unet_32'",
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "TOTAL_EXAMPLES = 1",
            "BATCH_SCHEDULE = 1",
            f"INITIALISE_FROM = {setting}",
        ]
        values = FlagValues()
        engine.train.define_flags(values)
        argv = ["train", f"--workdir={tmp_path / 'run'}", "--gin_file=gin/quickstart.gin", *flags]
        rest = values(argv + [f"--gin_param={param}" for param in params])
        capfd.readouterr()
        return program.exit_code(engine.train.main, rest, values), capfd.readouterr().err

    for setting, expected in (
        ("'mine.pth'", "wrong type str; models.torch_weights.TorchWeights.files takes"),
        ("{'generator': 3}", "INITIALISE_FROM = {'generator': 3}: must map names"),
        ({"critic": path}, "'critic' is no network of the task; use one of generator, discriminator"),
        ({"discriminator": path}, f"{path}: holds unet_32 with batch norm, not patchgan of 3 layers"),
        ({"generator": "absent.pth"}, "absent.pth: cannot be read"),
    ):
        code, errors = train(setting)
        assert code == 2 and errors.count("\n") == 1 and expected in errors
    assert not os.path.exists(tmp_path / "run" / "config.gin")  # so that the mended command may start
    assert train({"generator": path})[0] == 0
    text = (tmp_path / "run" / "config.gin").read_text()
    assert "mine_net_G.pth" in text
    os.remove(path)
    assert train({"generator": path})[0] == 0  # complete already
    code, errors = train(None)
    assert code == 2 and "another configuration" in errors and "mine_net_G.pth" in errors


def test_a_run_that_starts_from_another_run(capfd, synthetic_datasets, tmp_path):
    def train(name, *params, gin_files=("gin/quickstart.gin",)):
        settings = [
            f"DATA_DIR = {synthetic_datasets!r}",
            "LOAD_SIZE = 36",
            "CROP_SIZE = 32",
            "pix2pix.Pix2Pix.generator = 'unet_32'",
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "TOTAL_EXAMPLES = 1",
            "BATCH_SCHEDULE = 1",
            "SAMPLE_EVERY = 0",
        ]
        workdir = str(tmp_path / name)
        engine.train.train(gin_files=gin_files, gin_params=[*settings, *params], workdir=workdir)
        return workdir

    def refusal(built, **settings):
        with pytest.raises(ConfigurationError) as error:
            RunWeights(**{"workdir": old} | settings)(built)
        assert "\n" not in str(error.value)
        return str(error.value)

    old = train("old", "pix2pix.Pix2Pix.ema_decay = 0.5")
    state = restore_run(old).state
    example = {name: tf.TensorSpec((32, 32, 3)) for name in ("input", "target")}
    for weights, expected in ((None, state.averaged), ("raw", state.networks)):
        networks = small(Pix2Pix).networks(example)
        RunWeights(workdir=old, weights=weights)(networks)
        assert_weights(networks["generator"], expected["generator"].get_weights())
        assert_weights(networks["discriminator"], state.networks["discriminator"].get_weights())

    wide = Pix2Pix(generator="unet_32", generator_filters=2, discriminator_filters=3).networks(example)
    assert f"discriminator of {old} at 1 examples: no kernel of discriminator" in refusal(wide)
    RunWeights(workdir=old, networks={"generator": "generator"})(wide)
    assert_weights(wide["generator"], state.averaged["generator"].get_weights())
    for settings, expected in (
        ({"workdir": ""}, "RunWeights.workdir: is not set"),
        ({"workdir": str(tmp_path)}, "holds no run"),
        ({"checkpoint": "7"}, "there is no such checkpoint"),
        ({"weights": "mean"}, "RunWeights.weights = 'mean': unknown"),
        ({"networks": {"critic": "generator"}}, "'critic' is no network of the task"),
        ({"networks": {"generator": "G"}}, "'G' is no network of"),
    ):
        assert expected in refusal(wide, **settings)
    assert "has no network of the same name" in refusal({"critic": wide["discriminator"]})

    capfd.readouterr()
    from_run = ("gin/quickstart.gin", "gin/from_run.gin")
    setting = f"run_weights.RunWeights.workdir = {old!r}"
    new = train("new", setting, "LEARNING_RATE = 0.0", gin_files=from_run)
    told = capfd.readouterr().out
    count = len(state.networks["generator"].weights)
    assert f"generator: {count} of {count} weights are those of generator of {old} at 1 examples" in told
    weights = restore_run(new).state.networks["generator"].weights
    for weight, stored in zip(weights, state.averaged["generator"].weights, strict=True):
        if "moving" not in weight.path:  # these move at any learning rate
            np.testing.assert_array_equal(weight, stored, err_msg=weight.path)
    config = (tmp_path / "new" / "config.gin").read_text()
    assert "run_weights.RunWeights.workdir = " in config and repr(old) in config
    with pytest.raises(ConfigurationError, match="keeps no moving averages"):
        RunWeights(workdir=new, weights="averaged")(wide)
