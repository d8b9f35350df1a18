"""gin files and overrides: what is accepted, what is refused, what a changed configuration is."""

import importlib
import inspect
import pathlib
import re

import pytest

import gin
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.gin_config import diff, loader, validation
from engine.gin_config.free_settings import free_to_change
from engine.storage.run_directory import RunDirectory

QUICKSTART = ["gin/quickstart.gin"]


def refused(*params, files=QUICKSTART):
    with pytest.raises(ConfigurationError) as caught:
        loader.load_experiment(gin_files=files, gin_params=params)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_quickstart_reads_and_overrides():
    experiment, text = loader.load_experiment(
        gin_files=QUICKSTART, gin_params=["TOTAL_EXAMPLES = 80", "pix2pix.Pix2Pix.l1_weight = 50"]
    )
    assert experiment.total_examples == 80
    assert experiment.task.l1_weight == 50
    assert experiment.data.crop_size == 64
    # What was used reads back to the same.
    again = loader.load_experiment_text(text, where="here")
    assert again.total_examples == 80 and again.task.l1_weight == 50


ADDED = (
    "augmentations",
    "base",
    "degradations_",
    "early_stopping",
    "fine_tuning",
    "from_run",
    "inception_features",
    "lpips",
    "mlflow",
    "single",
    "unpaired",
    "optimizers/",
    "schedules/",
)  # given after the file of a task
GIN_FILES = sorted(
    path.relative_to(f"{loader.ROOT}/gin").with_suffix("").as_posix()
    for path in pathlib.Path(loader.ROOT, "gin").rglob("*.gin")
)


@pytest.mark.parametrize("name", GIN_FILES)
def test_every_gin_file_makes_a_task(name):
    first = ["gin/pix2pix.gin"] if name.startswith(ADDED) else []
    experiment, text = loader.load_experiment(gin_files=[*first, f"gin/{name}.gin"])
    assert experiment.task.phases()
    again = loader.load_experiment_text(text, where="here")  # as evaluation and memory measurement do
    assert type(again.task) is type(experiment.task)


def test_public_macros_are_those_of_base_gin():
    with open(f"{loader.ROOT}/gin/base.gin") as file:
        defined = re.findall(r"^([A-Z_]+) = .*# ", file.read(), flags=re.MULTILINE)
    assert defined == validation.PUBLIC_MACROS  # each with a comment


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
        ("LEARNING_RATE = -1.0", "Adam.learning_rate = -1.0: must be at least 0"),
        ("LEARNING_RATE = 1e999", "Adam.learning_rate = inf: must be at least 0, and finite"),
        ("task.Adam.epsilon = -1e-8", "Adam.epsilon = -1e-08: must be at least 0"),
        ("SAVE_EVERY = -4000", "SAVE_EVERY = -4000: not a length of training"),
        ("SAVE_EVERY = '50%'", "SAVE_EVERY = '50%': not a length of training here (only lengths of a learn"),
        ("LOG_EVERY = '2weeks'", "LOG_EVERY = '2weeks': not a length of training"),
        ("pix2pix.Pix2Pix.l1_weight = -1.0", "Pix2Pix.l1_weight = -1.0: must be at least 0"),
        ("pix2pix.Pix2Pix.generator_filters = 0", "Pix2Pix.generator_filters = 0: must be at least 1"),
        ("pix2pix.Pix2Pix.discriminator_filters = -4", "discriminator_filters = -4: must be at least 1"),
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
    loader.load_experiment(gin_files=[str(path)])
    message = refused("schedules.LinearDecay.decay = '3ep'", files=[str(path)])
    assert "nothing in this configuration uses schedules.LinearDecay.decay" in message


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    header = "\ufefffrom __gin__ import dynamic_registration\n"
    (tmp_path / "inner.gin").write_text(f"{header}include 'gin/quickstart.gin'\nSEED = 5\n", "utf-8")
    path = tmp_path / "outer.gin"
    path.write_text(f"{header}include {str(tmp_path / 'inner.gin')!r}\nTOTAL_EXAMPLES = 8\n", "utf-8")
    experiment, text = loader.load_experiment(gin_files=[str(path)])
    assert (experiment.total_examples, experiment.seed) == (8, 5)
    run = RunDirectory(str(tmp_path))
    (tmp_path / "config.gin").write_text(f"\ufeff{text}", "utf-8")
    assert run.read_config() == text


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_that_is_not_utf_8(tmp_path, encoding):
    path = tmp_path / "mine.gin"
    path.write_text("# é\ninclude 'gin/quickstart.gin'\n", encoding)
    assert refused(files=[str(path)]) == f"{path}: is not UTF-8 text; save it as UTF-8"


def test_a_folder_is_no_gin_file(tmp_path):
    assert f"--gin_file={tmp_path}: no such file" in refused(files=[str(tmp_path)])


def test_missing_file_and_missing_task():
    assert "gin/nowhere.gin: no such file" in refused(files=["gin/nowhere.gin"])
    assert "missing 1 required keyword-only argument: 'task'" in refused(files=["gin/base.gin"])


@pytest.mark.parametrize(
    "file, param",
    [
        ("cyclegan", "cyclegan.CycleGan.target_cycle_weight = -1.0"),
        ("cyclegan", "cyclegan.CycleGan.identity_weight = -0.5"),
        ("cyclegan", "cyclegan.CycleGan.generator_filters = 0"),
        ("cut", "cut.Cut.nce_weight = -1.0"),
        ("cut", "cut.Cut.discriminator_filters = 0"),
        ("bicycle_gan", "bicycle_gan.BicycleGan.kl_weight = -0.01"),
        ("bicycle_gan", "latent_networks.LatentNetworks.encoder_filters = 0"),
        ("bicycle_gan", "scaled_discriminators.ScaledDiscriminators.filters = 0"),
        ("super_resolution", "super_resolution.SuperResolution.generator_filters = 0"),
        ("colourisation", "colourisation.Colourisation.l1_weight = -1.0"),
    ],
)
def test_weights_below_0_and_networks_of_no_channel_are_refused(file, param):
    setting = param.partition(".")[2]
    assert f"{setting}: must be at least" in refused(param, files=[f"gin/{file}.gin"])


class Faulty:
    """What a mistake in the code of a constructor looks like."""

    def __init__(self):
        Needy()


class Needy:
    def __init__(self, *, size: int):
        self.size = size


def test_only_what_the_configuration_lacks_is_called_missing(tmp_path):
    """A TypeError from inside a constructor is a mistake in the code, and keeps its traceback."""
    path = tmp_path / "mine.gin"
    header = (
        f"from __gin__ import dynamic_registration\nimport {__name__}\nfrom models import pix2pix\n"
        "include 'gin/quickstart.gin'\n"
    )
    path.write_text(f"{header}pix2pix.Pix2Pix.fidelity = @{__name__}.Needy()\n")
    assert "incomplete (Needy. missing 1 required keyword-only argument: 'size')" in refused(
        files=[str(path)]
    )
    path.write_text(f"{header}pix2pix.Pix2Pix.fidelity = @{__name__}.Faulty()\n")
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'size'"):
        loader.load_experiment(gin_files=[str(path)])


def test_missing_module_of_a_task(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text("from __gin__ import dynamic_registration\nimport a_module_of_mine\n")
    assert "No module named 'a_module_of_mine'; put its folder on PYTHONPATH" in refused(files=[str(path)])


def test_differences_are_those_that_change_what_is_learned():
    experiment, old = loader.load_experiment(gin_files=QUICKSTART)
    free = free_to_change(experiment)
    changed = [
        "TOTAL_EXAMPLES = 9",
        "CPU_REPLICAS = 2",
        "LOG_EVERY = 1",
        "EVALUATE_EVERY = 7",
        "DATA_DIR = 'elsewhere'",
        "supply.Supply.on_bad_record = 'skip'",
    ]
    _, same = loader.load_experiment(gin_files=QUICKSTART, gin_params=changed)
    assert diff.differences(old, same, free_to_change=free) == []
    _, other = loader.load_experiment(
        gin_files=QUICKSTART, gin_params=["SEED = 1", "pix2pix.Pix2Pix.norm = 'instance'"]
    )
    assert diff.differences(old, other, free_to_change=free) == [
        "experiment.Experiment.seed: 0 -> 1",
        "pairs.PairedImages.seed: 0 -> 1",
        "pix2pix.Pix2Pix.norm: 'batch' -> 'instance'",
    ]


def test_a_free_setting_is_named_in_full():
    free = {"data.supply.Supply.cache"}

    def changed(module, name):
        texts = [f"from {module} import {name}\n{name}.Supply.cache = {value}" for value in (1, 2)]
        return diff.differences(*texts, free_to_change=free)

    assert changed("data", "supply") == []
    assert changed("mine", "supply") == ["supply.Supply.cache: 1 -> 2"]
    assert changed("data", "other") == ["other.Supply.cache: 1 -> 2"]


def test_every_free_setting_exists():
    experiment, _ = loader.load_experiment(gin_files=QUICKSTART)
    for key in free_to_change(experiment):
        module, name, setting = key.rsplit(".", 2)
        made = getattr(importlib.import_module(module), name)
        assert setting in inspect.signature(made).parameters, key


def without(text, key):
    """A configuration as code wrote it that did not know the setting yet."""
    lines = text.splitlines()
    kept = [line for line in lines if not line.startswith((f"{key} = ", f"OPTIMIZER/{key} = "))]
    assert len(kept) == len(lines) - 1
    return "\n".join(kept)


def test_a_setting_that_a_newer_version_adds_is_no_difference_at_its_default():
    experiment, text = loader.load_experiment(gin_files=QUICKSTART)

    def changed(key, *params):
        _, new = loader.load_experiment(gin_files=QUICKSTART, gin_params=params)
        return diff.differences(without(text, key), new, free_to_change=free_to_change(experiment))

    for key in ("experiment.Experiment.scale_ema_decay", "pix2pix.Pix2Pix.top_k", "task.Adam.clip_norm"):
        assert changed(key) == []
    for key, default, other in (
        ("pix2pix.Pix2Pix.top_k", "1.0", "0.5"),
        ("task.Adam.clip_norm", "None", "1.0"),
    ):
        assert changed(key, f"{key} = {other}") == [f"{key}: not set, {default} by default -> {other}"]


@pytest.mark.parametrize(
    ("key", "old", "new", "is_same"),
    [
        ("task.Adam.clip_norm", "1", "1.0", True),
        ("task.Adam.learning_rate", "0.0002", "2e-4", True),
        ("task.Adam.clip_norm", "1", "2.0", False),
        ("pix2pix.Pix2Pix.norm", "'batch'", '"batch"', True),
        ("experiment.Experiment.seed", "1", "1.0", False),  # a whole number
        ("experiment.Experiment.scale_ema_decay", "0", "False", False),
        ("pix2pix.Pix2Pix.fidelity", "@a.Fidelity()", "@b.Fidelity()", False),
        ("mine.Mine.cache", "0", "0.0", False),  # nothing says what it takes
    ],
)
def test_two_ways_to_write_one_value_are_no_difference(key, old, new, is_same):
    imports = "from engine import experiment\nfrom engine import task\nfrom models import pix2pix\n"
    lines = diff.differences(f"{imports}{key} = {old}", f"{imports}{key} = {new}", free_to_change=())
    assert lines == ([] if is_same else [f"{key}: {old} -> {new}"])


PUBLISHED = {  # epochs of constant learning rate, of decay, and of the run
    "pix2pix": (100, 100, 200),
    "pix2pix_facades": (100, 100, 200),
    "supervised": (100, 100, 200),
    "bicycle_gan": (100, 100, 200),
    "cyclegan": (100, 100, 200),
    "colourisation": (100, 100, 200),
    "super_resolution": (100, 100, 200),
    "denoising": (100, 100, 200),
    "codec": (100, 100, 200),
    "cut": (200, 200, 400),
    "fastcut": (150, 50, 200),
}


def lengths(constant, decay, total):
    imports = "from engine import experiment\nfrom engine import schedules\n"
    return imports + "\n".join(
        f"{name} = {value!r}"
        for name, value in {
            "experiment.Experiment.total_examples": total,
            "schedules.LinearDecay.constant": constant,
            "schedules.LinearDecay.decay": decay,
        }.items()
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_relative_lengths_are_the_published_ones_at_the_default_length(name):
    """And a run that older code has trained with those goes on."""
    experiment, text = loader.load_experiment(gin_files=[f"gin/{name}.gin"])
    constant, decay, total = PUBLISHED[name]
    assert experiment.total_examples == f"{total}ep"
    for optimizer in experiment.task.optimizers.values():
        for per_epoch in (1, 399, 400):
            run = optimizer.schedule.for_run(total_examples=total * per_epoch, examples_per_epoch=per_epoch)
            assert (run.constant, run.decay) == (constant * per_epoch, decay * per_epoch)
    old = re.sub(r"(LinearDecay\.constant = ).*", rf"\g<1>'{constant}ep'", text)
    old = re.sub(r"(LinearDecay\.decay = ).*", rf"\g<1>'{decay}ep'", old)
    assert old != text
    free = free_to_change(experiment)
    assert diff.differences(old, text, free_to_change=free, examples_per_epoch=399) == []
    assert len(diff.differences(old, text, free_to_change=free)) == 2


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (("100ep", "100ep", "200ep"), ("50%", "50%", "200ep"), []),
        (("50%", "50%", "200ep"), (4000, "4000ex", 8000), []),
        (("50%", "50%", "200ep"), ("50%", "50%", "300ep"), []),  # follows the run, whose length is free
        (("100ep", "100ep", "200ep"), ("100ep", "100ep", "300ep"), []),
        (("100ep", "100ep", "200ep"), ("50%", "50%", "300ep"), ["constant: '100ep' -> '50%'", "decay: '100"]),
        (("100ep", "100ep", "50ep"), ("50%", "50%", "50ep"), ["constant: '100ep' -> '50%'", "decay: '100"]),
        (("100ep", "100ep", "200ep"), ("60%", "50%", "200ep"), ["constant: '100ep' -> '60%'"]),
        (("nonsense", 0, 9), ("junk", 0, 9), ["constant: 'nonsense' -> 'junk'"]),
    ],
)
def test_lengths_are_compared_as_examples(old, new, changed):
    free = {"engine.experiment.Experiment.total_examples"}
    lines = diff.differences(lengths(*old), lengths(*new), free_to_change=free, examples_per_epoch=40)
    assert len(lines) == len(changed)
    for line, expected in zip(lines, changed, strict=True):
        assert line.startswith(f"schedules.LinearDecay.{expected}")


def test_total_examples_of_a_configuration():
    assert diff.total_examples(lengths(0, 0, "2.5ep"), examples_per_epoch=40) == 100
    assert diff.total_examples(lengths(0, 0, 7), examples_per_epoch=40) == 7
    assert diff.total_examples("", examples_per_epoch=40) is None


def test_how_often_to_evaluate_is_free_unless_a_schedule_follows_the_evaluations():
    files = [*QUICKSTART, "gin/schedules/smith_plateau.gin"]
    experiment, text = loader.load_experiment(gin_files=files)
    _, other = loader.load_experiment(gin_files=files, gin_params=["EVALUATE_EVERY = 7"])
    (line,) = diff.differences(text, other, free_to_change=free_to_change(experiment))
    assert line == "experiment.Experiment.evaluate_every: '5ep' -> 7"


def test_home_directory_in_the_path_of_a_gin_file(tmp_path, monkeypatch):
    """A shell does not replace the tilde of --gin_file=~/mine.gin."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.gin").write_text("TOTAL_EXAMPLES = 7\n")
    experiment, _ = loader.load_experiment(gin_files=[*QUICKSTART, "~/mine.gin"])
    assert experiment.total_examples == 7


def test_another_configuration_leaves_the_one_that_is_loaded():
    _, other = loader.load_experiment(gin_files=["gin/cyclegan.gin"])
    _, text = loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=["SEED = 7"])
    before = gin.config_str()
    experiment = loader.load_another_text(other, where="there")
    assert type(experiment.task).__name__ == "CycleGan" and experiment.seed == 0
    assert gin.config_str() == before and "SEED = 7" in before
    again = gin.get_configurable(Experiment)()
    assert type(again.task).__name__ == "Pix2Pix" and again.seed == 7
    with pytest.raises(ConfigurationError, match="there: "):
        loader.load_another_text("SEED =", where="there")
    assert gin.config_str() == before
