"""gin files and overrides: what is accepted, what is refused, what a changed configuration is."""

import re

import pytest

from engine import config
from engine.task import ConfigurationError

QUICKSTART = ["gin/quickstart.gin"]


def refused(*params, files=QUICKSTART):
    with pytest.raises(ConfigurationError) as caught:
        config.load_experiment(gin_files=files, gin_params=params)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_quickstart_reads_and_overrides():
    experiment, text = config.load_experiment(
        gin_files=QUICKSTART, gin_params=["TOTAL_EXAMPLES = 80", "pix2pix.Pix2Pix.l1_weight = 50"]
    )
    assert experiment.total_examples == 80
    assert experiment.task.l1_weight == 50
    assert experiment.data.crop_size == 64
    # What was used reads back to the same.
    again = config.load_experiment_text(text, where="here")
    assert again.total_examples == 80 and again.task.l1_weight == 50


@pytest.mark.parametrize(
    "name",
    [
        "base",
        "pix2pix",
        "pix2pix_facades",
        "quickstart",
        "supervised",
        "super_resolution",
        "denoising",
        "codec",
    ],
)
def test_every_gin_file_reads(name):
    files = [f"gin/{name}.gin"] + (["gin/pix2pix.gin"] if name == "base" else [])
    config.load_experiment(gin_files=files)


def test_public_macros_are_those_of_base_gin():
    with open(f"{config.ROOT}/gin/base.gin") as file:
        defined = re.findall(r"^([A-Z_]+) = .*# ", file.read(), flags=re.MULTILINE)
    assert defined == config.PUBLIC_MACROS  # each with a comment


@pytest.mark.parametrize(
    "param, expected",
    [
        ("TOTAL_EXAMPELS = 3", "TOTAL_EXAMPELS: no such macro; did you mean TOTAL_EXAMPLES"),
        ("pix2pix.Pix2Pix.l1_wieght = 3", "doesn't have a parameter named 'l1_wieght'"),
        ("pix2pix.Pix3Pix.l1_weight = 3", "No configurable matching 'pix2pix.Pix3Pix'"),
        ("experiment.Experiment.seed = %SEDE", "%SEDE: no such macro; did you mean %SEED"),
        ("CROP_SIZE = 'big'", "CROP_SIZE = 'big': wrong type str"),
        ("LEARNING_RATE = 'fast'", "LEARNING_RATE = 'fast': wrong type str"),
        ("DROPOUT = 1", "DROPOUT = 1: wrong type int; models.pix2pix.Pix2Pix.dropout takes bool"),
        ("SEED = 1.5", "SEED = 1.5: wrong type float"),
        ("pix2pix.Pix2Pix.generator_optimizer = 3", "generator_optimizer = 3: wrong type int"),
        ("SEED = ", "write NAME = value"),
        ("SEED", "write NAME = value"),
        ("DATASET = mine", "and text in quotes"),
        ("KEEP_CHECKPOINTS = 0", "KEEP_CHECKPOINTS = 0: must be at least 1"),
        ("CROP_SIZE = 80", "larger than load_size"),
        ("pix2pix.Pix2Pix.gan_loss = 'hinge2'", "'hinge2': unknown; use one of bce, lsgan, hinge, wgan_gp"),
        ("pix2pix.Pix2Pix.gan_loss = 'wgan_gp'", "mixes examples, but wgan_gp penalises"),
        (
            "regularisation.Regularisation.diff_augment = ('blur',)",
            "unknown; choose among colour, translation",
        ),
        ("schedules.LinearDecay.constant = '3days'", "'3days': not a length of training"),
    ],
)
def test_bad_overrides_are_refused_by_name(param, expected):
    message = refused(param)
    assert expected in message
    assert ";" in message  # what is wrong; how to mend it


def test_binding_that_nothing_uses_is_refused(tmp_path):
    path = tmp_path / "constant.gin"
    path.write_text(
        "from __gin__ import dynamic_registration\nfrom engine import task\n"
        "include 'gin/quickstart.gin'\ntask.Adam.schedule = None\n"
    )
    config.load_experiment(gin_files=[str(path)])
    message = refused("schedules.LinearDecay.decay = '3ep'", files=[str(path)])
    assert "nothing in this configuration uses schedules.LinearDecay.decay" in message


def test_missing_file_and_missing_task():
    assert "gin/nowhere.gin: no such file" in refused(files=["gin/nowhere.gin"])
    assert "missing 1 required keyword-only argument: 'task'" in refused(files=["gin/base.gin"])


def test_missing_module_of_a_task(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text("from __gin__ import dynamic_registration\nimport a_module_of_mine\n")
    assert "No module named 'a_module_of_mine'; put its folder on PYTHONPATH" in refused(files=[str(path)])


def test_differences_are_those_that_change_what_is_learned():
    experiment, old = config.load_experiment(gin_files=QUICKSTART)
    free_to_change = experiment.free_to_change
    free = [
        "TOTAL_EXAMPLES = 9",
        "CPU_REPLICAS = 2",
        "LOG_EVERY = 1",
        "EVALUATE_EVERY = 7",
        "DATA_DIR = 'elsewhere'",
        "supply.Supply.on_bad_record = 'skip'",
    ]
    _, same = config.load_experiment(gin_files=QUICKSTART, gin_params=free)
    assert config.differences(old, same, free_to_change=free_to_change) == []
    _, other = config.load_experiment(
        gin_files=QUICKSTART, gin_params=["SEED = 1", "pix2pix.Pix2Pix.norm = 'instance'"]
    )
    assert config.differences(old, other, free_to_change=free_to_change) == [
        "experiment.Experiment.seed: 0 -> 1",
        "pairs.PairedImages.seed: 0 -> 1",
        "pix2pix.Pix2Pix.norm: 'batch' -> 'instance'",
    ]


def test_how_often_to_evaluate_is_free_unless_a_schedule_follows_the_evaluations():
    files = [*QUICKSTART, "gin/schedules/smith_plateau.gin"]
    experiment, text = config.load_experiment(gin_files=files)
    _, other = config.load_experiment(gin_files=files, gin_params=["EVALUATE_EVERY = 7"])
    (line,) = config.differences(text, other, free_to_change=experiment.free_to_change)
    assert line == "experiment.Experiment.evaluate_every: '5ep' -> 7"
