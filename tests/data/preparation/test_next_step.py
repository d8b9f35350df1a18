"""The command that preparing a data set ends with reads what was prepared."""

import re
import shlex

import numpy as np
import pytest

from data.preparation.report import Report
from data.tfrecords.image_encoding import StoredFormat
from engine.gin_config import loader

COLOUR = StoredFormat(channels=3, dtype="uint8", value_range=(0, 255))


def noise(seed, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (32, 64, channels), np.uint8)


def experiment_of(command):
    """What the printed command line would train."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "engine.train"] and words[-1] == "--workdir=runs/made"
    given = {
        flag: [word.removeprefix(f"--{flag}=") for word in words if word.startswith(f"--{flag}=")]
        for flag in ("gin_file", "gin_param")
    }
    return loader.load_experiment(gin_files=given["gin_file"], gin_params=given["gin_param"])[0]


def files_of(command):
    return re.findall(r"--gin_file=(\S+)", command)


@pytest.mark.parametrize(
    "layout, images, files, data, channels",
    [
        ("side_by_side", {"": 3}, ["gin/pix2pix.gin"], "PairedImages", (3, 3)),
        ("paired", {"A/": 1, "B/": 3}, ["gin/pix2pix.gin"], "PairedImages", (1, 3)),
        ("unpaired", {"horse/": 3, "zebra/": 3}, ["gin/cyclegan.gin"], "UnpairedImages", (3, 3)),
        ("unpaired", {"infrared/": 1, "visible/": 3}, ["gin/cyclegan.gin"], "UnpairedImages", (1, 3)),
        ("single", {"": 1}, ["gin/pix2pix.gin", "gin/single.gin"], "SingleImages", (1, 1)),
    ],
)
def test_the_command_reads_what_was_prepared(save, run_prepare, layout, images, files, data, channels):
    for folder, number_of_channels in images.items():
        for k in range(3):
            save(f"{folder}{k}.png", noise(10 * number_of_channels + k, number_of_channels))
    code, out, err = run_prepare(layout, val_fraction=0, test_fraction=0)
    assert (code, err) == (0, "")
    command = out.splitlines()[-1].removeprefix("train     ")
    assert files_of(command) == files
    experiment = experiment_of(command)
    assert type(experiment.data).__name__ == data
    spec = experiment.data.example_spec
    assert (spec["input"].shape[-1], spec["target"].shape[-1]) == channels
    if layout == "unpaired":  # identity is asked for where pictures can be kept as they are
        assert experiment.task.identity_weight == (0.5 if channels[0] == channels[1] else 0)


@pytest.mark.parametrize(
    "label, files, more",
    [
        ({"class_feature": "label"}, ["gin/classification.gin"], []),
        ({"class_feature": "species"}, ["gin/classification.gin"], ['label = "species"']),
        ({"targets": ("width: train mean 1",)}, ["gin/regression.gin"], []),
    ],
)
@pytest.mark.parametrize("feature", ["image", "picture"])
def test_labelled_data_sets(tmp_path, label, files, more, feature):
    report = Report(
        dataset="made",
        data_dir=str(tmp_path),
        directory=str(tmp_path / "made"),
        examples={"train": 4},
        shards={"train": 1},
        size_bytes=1,
        features={feature: COLOUR},
        **label,
    )
    command = str(report).splitlines()[-1]
    assert files_of(command) == files
    expected = (['feature = "picture"'] if feature == "picture" else []) + more
    assert re.findall(r"LabelledImages\.([^']+)", command) == expected


@pytest.mark.parametrize(
    "features, splits, files",
    [
        ({"image": COLOUR}, ("trainA", "trainB", "testA", "testB"), ["gin/cyclegan.gin"]),  # TFDS's cycle_gan
        ({"picture": COLOUR}, ("train", "test"), ["gin/pix2pix.gin", "gin/single.gin"]),
        ({"image": COLOUR, "mask": COLOUR}, ("train",), []),  # which of them is for the user to say
        ({"image": COLOUR}, ("test",), []),
        ({}, ("train",), []),
    ],
)
def test_data_sets_of_others(tmp_path, features, splits, files):
    report = Report(
        dataset="made",
        data_dir=str(tmp_path),
        directory=str(tmp_path / "made"),
        examples={split: 4 for split in splits},
        shards={split: 1 for split in splits},
        size_bytes=1,
        features=features,
    )
    command = str(report).splitlines()[-1].removeprefix("train     ")
    assert files_of(command) == files and '--gin_param=DATASET = "made"' in command
    if not files:
        assert command.startswith("with ")
    elif "picture" in features:
        assert experiment_of(command).data.feature == "picture"
