"""A run refuses a data set that was prepared anew under its name, and says what differs."""

import contextlib
import dataclasses
import functools
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl.flags import FlagValues
from PIL import Image

import engine.train
from data.prepare import prepare
from data.tfrecords.prepared_dataset import find_dataset
from engine.cli import program
from engine.storage.data_fingerprint import changes_of_data, fingerprint_of, write_fingerprint
from engine.storage.run_directory import RunDirectory, read_rows
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import SmallPix2Pix


def draw(folder, count, *, seed=0, names="{:03d}", channels=3):
    """Writes pairs of images side by side: `count` for training, two for validation."""
    for split, number in (("train", count), ("val", 2)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for k in range(number):
            pixels = np.random.default_rng([seed, k]).integers(0, 256, (40, 80, 3), np.uint8)
            pixels = pixels[..., 0] if channels == 1 else pixels
            Image.fromarray(pixels).save(folder / split / f"{names.format(k)}.png")
    return folder


def prepare_in(folder, count, *, data_dir="datasets", **settings):
    """Prepares images under one name; settings as of `draw`."""
    shutil.rmtree(folder / "source", ignore_errors=True)
    options = {"layout": "side_by_side", "name": "mine", "overwrite": True}
    draw(folder / "source", count, **settings)
    prepare(source=folder / "source", data_dir=str(folder / data_dir), **options)


def train_in(folder, *params, total=6, data_dir="datasets", flags=()):
    """Runs engine.train on the data set; returns its exit code."""
    values = FlagValues()
    engine.train.define_flags(values)
    params = [
        "DATASET = 'mine'",
        f"DATA_DIR = {str(folder / data_dir)!r}",
        f"TOTAL_EXAMPLES = {total}",
        "BATCH_SCHEDULE = 2",
        "LOAD_SIZE = 36",
        "CROP_SIZE = 32",
        "LOG_EVERY = 1",
        "EVALUATE_EVERY = 0",
        "SAMPLE_EVERY = 0",
        *params,
    ]
    argv = ["train", "--gin_file=gin/quickstart.gin", f"--workdir={folder / 'run'}", *flags]
    rest = values(argv + [f"--gin_param={param}" for param in params])
    return program.exit_code(engine.train.main, rest, values)


@pytest.fixture(autouse=True)
def use_small_networks(small_networks):
    """The networks do not matter here."""


@pytest.fixture
def prepare_mine(tmp_path):
    return functools.partial(prepare_in, tmp_path)


@pytest.fixture
def run_train(tmp_path, capfd):
    """Runs engine.train on the data set: (exit code, stderr); `run.said` is its stdout."""

    def run(*params, **kwargs):
        capfd.readouterr()
        code = train_in(tmp_path, *params, **kwargs)
        run.said, errors = capfd.readouterr()
        return code, errors

    return run


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A folder with ten images, prepared, and a run on them; trained once for all tests."""
    folder = tmp_path_factory.mktemp("first")
    prepare_in(folder, 10)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.setattr(Pix2Pix, "networks", SmallPix2Pix.networks)
        assert train_in(folder) == 0
    assert errors.getvalue() == ""
    return folder


@pytest.fixture
def trained_on_ten(first_run, tmp_path):
    """A copy of that run and of its data set."""
    shutil.copytree(first_run, tmp_path, dirs_exist_ok=True)


def positions(tmp_path):
    return [row["examples"] for row in read_rows(str(tmp_path / "run" / "train.jsonl"))]


def recorded(tmp_path):
    return json.loads((tmp_path / "run" / "fingerprint.json").read_text())


def assert_refused(result, *expected):
    code, errors = result
    assert code == 2, errors
    assert errors.count("\n") == 1 and "Traceback" not in errors
    for text in (*expected, "--allow_config_change"):
        assert text in errors


def test_more_images_are_refused_until_they_are_accepted(trained_on_ten, prepare_mine, run_train, tmp_path):
    assert recorded(tmp_path)["splits"]["train"]["examples"] == 10
    before = recorded(tmp_path)
    prepare_mine(16)
    assert_refused(run_train(total=8), "holds a run with other data (train: 10 -> 16 examples)")
    assert positions(tmp_path) == [2, 4, 6] and recorded(tmp_path) == before
    # With other settings both are told.
    both = run_train("SEED = 3", total=8)
    assert_refused(both, "another configuration and other data (", "seed: 0 -> 3", "train: 10 -> 16 examples")
    assert run_train(total=8, flags=["--allow_config_change"]) == (0, "")
    assert "continuing with other data (train: 10 -> 16 examples)" in run_train.said
    assert positions(tmp_path) == [2, 4, 6, 8]
    # What was accepted is the data set of the run from now on.
    assert recorded(tmp_path)["splits"]["train"]["examples"] == 16
    assert run_train(total=10) == (0, "")
    prepare_mine(10)
    assert_refused(run_train(total=12), "train: 16 -> 10 examples")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"seed": 1}, "train: other contents under the same names"),
        ({"names": "x{:03d}"}, "train: other names, or the same in another order"),
        ({"channels": 1}, "features 'pair': uint8 (None, None, 3), 0 to 255 -> uint8 (None, None, 1)"),
    ],
)
def test_as_many_other_images_are_refused(trained_on_ten, prepare_mine, run_train, settings, expected):
    prepare_mine(10, **settings)
    assert_refused(run_train(total=8), expected)


def test_the_same_images_prepared_anew_or_moved_are_no_difference(
    trained_on_ten, prepare_mine, run_train, tmp_path
):
    prepare_mine(10)
    assert run_train(total=8) == (0, "")
    shutil.move(tmp_path / "datasets", tmp_path / "elsewhere")
    assert run_train(total=10, data_dir="elsewhere") == (0, "")
    assert positions(tmp_path) == [2, 4, 6, 8, 10]


def test_an_old_run_gets_a_fingerprint_at_its_next_start(trained_on_ten, run_train, tmp_path):
    before = recorded(tmp_path)
    (tmp_path / "run" / "fingerprint.json").unlink()
    assert run_train(total=8) == (0, "")
    assert recorded(tmp_path) == before


def forget_digests(tmp_path):
    """Makes the data set one that older code has prepared."""
    file = Path(find_dataset("mine", tmp_path / "datasets"), "metadata.json")
    metadata = json.loads(file.read_text())
    del metadata["digests"]
    file.write_text(json.dumps(metadata))


def test_old_data_sets_are_compared_by_counts_and_sizes(prepare_mine, run_train, tmp_path):
    prepare_mine(10)
    forget_digests(tmp_path)
    assert run_train() == (0, "")
    assert recorded(tmp_path)["splits"]["train"].keys() == {"examples", "files", "file_bytes"}
    prepare_mine(10)  # with digests now, and the same files
    assert run_train(total=8) == (0, "")
    assert recorded(tmp_path)["splits"]["train"].keys() > {"names", "records"}
    forget_digests(tmp_path)
    assert run_train(total=10) == (0, "")
    prepare_mine(10, names="longer_names_{:03d}")
    assert_refused(run_train(total=12), "train: files of other sizes")


def test_a_damaged_record_of_the_data_is_refused(trained_on_ten, run_train, tmp_path):
    for text in ("{", "[1]", '{"splits": 3}'):
        (tmp_path / "run" / "fingerprint.json").write_text(text)
        code, errors = run_train(total=8)
        assert code == 2 and errors.count("\n") == 1
        assert "fingerprint.json: is not a description of a data set; remove it" in errors


@dataclasses.dataclass
class Numbers:
    """Data of a user's own."""

    splits: dict
    version: str

    def fingerprint(self):
        return {"splits": self.splits, "origin": {"version": self.version, "labels": ["a", "b"]}}


def test_data_of_a_user_s_own(noise_pairs, tmp_path):
    run = RunDirectory(str(tmp_path))
    write_fingerprint(run, noise_pairs(train_examples=12))  # has none: its number of examples
    assert changes_of_data(run, noise_pairs(train_examples=12)) == []
    assert changes_of_data(run, noise_pairs(train_examples=13)) == ["train: 12 -> 13 examples"]
    splits = {"train": {"examples": 3}, "extra": {"examples": 5}}
    write_fingerprint(run, Numbers(splits, "1"))
    assert changes_of_data(run, Numbers(splits, "1")) == []
    assert changes_of_data(run, Numbers({"train": {"examples": 3}, "new": {"examples": 1}}, "2")) == [
        "origin 'version': 1 -> 2",
        "extra: 5 examples -> not there",
        "new: not there -> 1 examples",
    ]
    assert fingerprint_of(Numbers(splits, "1"))["origin"]["labels"] == ["a", "b"]
