"""Packed, moved and unpacked, a run continues to the same weights, and its best part is used as before."""

import contextlib
import io
import json
import math
import shlex
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from PIL import Image

import engine.evaluate
import engine.pack
import engine.train
from engine.cli import program
from engine.errors import ConfigurationError
from engine.outer_loop.best_checkpoint import BestCheckpoint
from engine.outer_loop.run_actions import RunActions
from engine.storage.run_directory import RunDirectory, read_rows
from engine.translate import translate
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import SmallPix2Pix

PROGRAMS = {"engine.pack": engine.pack, "engine.train": engine.train, "engine.evaluate": engine.evaluate}
SETTINGS = (
    "BATCH_SCHEDULE = 2",
    "LOAD_SIZE = 36",
    "CROP_SIZE = 32",
    "LOG_EVERY = 1",
    "SAVE_EVERY = 4",
    "EVALUATE_EVERY = 4",
    "SAMPLE_EVERY = 0",
    "experiment.Experiment.feature_extractor = None",
)
VOLATILE = {"examples_per_sec", "sec_per_step", "data_wait_fraction", "host_memory_bytes", "time_unix"}


def start(command, *more):
    """Runs `python -m PROGRAM FLAGS` in this process; returns what it prints."""
    _, _, name, *words = shlex.split(command)
    values = FlagValues()
    PROGRAMS[name].define_flags(values)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = program.exit_code(PROGRAMS[name].main, values([name, *words, *more]), values)
    assert code == 0, said.getvalue()
    return said.getvalue()


def train(workdir, data_dir, total):
    params = [*SETTINGS, f"DATA_DIR = {str(data_dir)!r}", f"TOTAL_EXAMPLES = {total}"]
    flags = [f"--workdir={workdir}", *(f"--gin_param={param}" for param in params)]
    start("python -m engine.train --gin_file=gin/quickstart.gin", *flags)


@pytest.fixture(scope="module", autouse=True)
def small_runs():
    """Small networks, and a best checkpoint that is the first one, so that it is not the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pix2Pix, "networks", SmallPix2Pix.networks)
        patch.setattr(BestCheckpoint, "improves", lambda self, _: math.isnan(float(self._best.numpy())))
        yield


@pytest.fixture(scope="module")
def archives(tmp_path_factory, synthetic_datasets):
    """A folder with an uninterrupted run, and with the packed parts of one that was stopped and lost."""
    folder = tmp_path_factory.mktemp("archives")
    shutil.copytree(synthetic_datasets, folder / "datasets", ignore=shutil.ignore_patterns(".cache"))
    train(folder / "whole", folder / "datasets", 12)
    train(folder / "first", folder / "datasets", 8)
    for part in ("all", "latest", "best"):
        command = ["python", "-m", "engine.pack", f"--workdir={folder / 'first'}", f"--part={part}", "--data"]
        start(shlex.join([*command, f"--output={folder / part}.tar"]))
    shutil.rmtree(folder / "first")
    shutil.rmtree(folder / "datasets")
    return folder


def unpacked(archives, part, target):
    """Unpacks a part; returns the commands that the program prints."""
    command = ["python", "-m", "engine.pack", f"--unpack={archives / part}.tar", f"--output={target}"]
    lines = start(shlex.join(command)).splitlines()[1:]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def weights(workdir):
    reader = tf.train.load_checkpoint(f"{workdir}/checkpoints/00000012/state")
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def rows(path):
    return [{key: row[key] for key in row.keys() - VOLATILE} for row in read_rows(str(path))]


@pytest.mark.parametrize("part, position", [("all", 8), ("latest", 8), ("best", 4)])
def test_training_continues_to_the_same_weights(archives, part, position, tmp_path):
    target = tmp_path / "a run's copy"  # the commands are quoted
    commands = unpacked(archives, part, target)
    said = start(commands["continue"], "--gin_param=TOTAL_EXAMPLES = 12")
    assert f"resuming at {position} of 12 examples" in said
    expected, found = weights(archives / "whole"), weights(target)
    assert expected.keys() == found.keys() and len(expected) > 20
    for name, value in expected.items():
        assert value.tobytes() == found[name].tobytes(), name
    for log in ("train.jsonl", "eval.jsonl"):
        assert rows(target / log) == rows(archives / "whole" / log)
    assert json.loads((target / "DONE").read_text())["examples"] == 12


def test_a_run_is_packed_while_it_trains(tmp_path, synthetic_datasets, archives, monkeypatch):
    """After each evaluation: the best checkpoint is being written and is newer than the newest one."""
    monkeypatch.setattr(BestCheckpoint, "improves", lambda *_: True)
    evaluate, packed = RunActions.evaluate, {}

    def evaluate_and_pack(self):
        evaluate(self)
        position = self._examples
        with contextlib.suppress(ConfigurationError), contextlib.redirect_stdout(io.StringIO()) as said:
            output = str(tmp_path / f"{position}.tar")
            packed[position] = engine.pack.pack(workdir=str(tmp_path / "run"), output=output).examples
            assert "trains there" in said.getvalue()

    with monkeypatch.context() as patch:
        patch.setattr(RunActions, "evaluate", evaluate_and_pack)
        train(tmp_path / "run", synthetic_datasets, 12)
    assert packed == {8: 4, 12: 8}  # at 4 there was no checkpoint yet
    for position in packed:
        target = tmp_path / f"copy{position}"
        engine.pack.unpack(archive=str(tmp_path / f"{position}.tar"), output=str(target))
        assert not (target / "DONE").exists()
        train(target, synthetic_datasets, 12)
        expected, found = weights(tmp_path / "run"), weights(target)
        for name, value in expected.items():
            assert value.tobytes() == found[name].tobytes(), name
        for log in ("train.jsonl", "eval.jsonl"):
            assert rows(target / log) == rows(archives / "whole" / log)
        assert [path.name for path in (target / "best").iterdir()] == ["00000012"]


def test_the_best_part_is_evaluated_and_translates(archives, tmp_path):
    commands = unpacked(archives, "best", tmp_path / "run")
    before = {path.name for path in (tmp_path / "run").iterdir()}
    assert before >= {"config.gin", "dataset.json", "checkpoints", "best", "train.jsonl", "datasets"}
    assert not before & {"samples", "tensorboard", "evaluations", "DONE"}
    start(commands["evaluate"], "--split=val")
    in_training = rows(archives / "whole" / "eval.jsonl")[0]
    *_, now = rows(tmp_path / "run" / "eval.jsonl")
    assert now["examples"] == in_training["examples"] == 4
    for metric in ("metric/psnr_db", "metric/ssim", "metric/mae"):
        assert now[metric] == pytest.approx(in_training[metric], rel=1e-6)
    # Neither latest nor best needs the data set to translate.
    shutil.rmtree(tmp_path / "run" / "datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    results = []
    for checkpoint in ("latest", "best"):
        output = tmp_path / checkpoint
        translate(
            workdir=str(tmp_path / "run"),
            input=str(tmp_path / "picture.png"),
            output=str(output),
            checkpoint=checkpoint,
        )
        results.append(np.asarray(Image.open(output / "picture.png")))
    np.testing.assert_array_equal(*results)
    assert results[0].shape == (32, 32, 3) and results[0].std() > 0


def test_an_unpacked_run_is_packed_again(archives, tmp_path):
    """With the data set, which is now in the run directory, the archive is the same."""
    unpacked(archives, "latest", tmp_path / "run")
    config = tmp_path / "run" / "config.gin"
    moved = config.read_text().replace(str(archives / "datasets"), str(tmp_path / "run" / "datasets"))
    config.write_text(moved)
    again = engine.pack.pack(
        workdir=str(tmp_path / "run"), output=str(tmp_path / "again.tar"), part="latest", data=True
    )
    engine.pack.unpack(archive=str(tmp_path / "again.tar"), output=str(tmp_path / "copy"))
    first = engine.pack.unpack(archive=str(archives / "latest.tar"), output=str(tmp_path / "other"))
    assert {**first.files, "config.gin": None} == {**again.files, "config.gin": None}


def test_data_that_cannot_be_packed_are_refused(archives, tmp_path):
    unpacked(archives, "latest", tmp_path / "run")
    run = RunDirectory(str(tmp_path / "run"))

    def refused():
        with pytest.raises(ValueError) as error:
            engine.pack.pack(workdir=run.path, output=str(tmp_path / "x.tar"), data=True)
        assert not (tmp_path / "x.tar").exists()
        return str(error.value)

    assert (
        "data set 'synthetic_facades' is not in" in refused()
    )  # it was moved: config.gin names the old place
    text = (run.read_config() or "").replace("@pairs.PairedImages()", "@my_data.Noise()")
    run.write_config(text)
    assert "the data of" in refused() and "are no data set of data.prepare" in refused()


def test_what_a_configuration_needs_beside_the_run_is_named(archives, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    unpacked(archives, "latest", tmp_path / "run")
    (tmp_path / "first.pth").write_bytes(b"")
    run = RunDirectory("run")
    text = (run.read_config() or "").replace(
        "INITIALISE_FROM = None", "INITIALISE_FROM = {'generator': 'first.pth', 'other': 'missing.pth'}"
    )
    run.write_config(f"import my_gan\n{text}")
    engine.pack.pack(workdir="run", output="a.tar")
    assert "not packed, but named in config.gin: first.pth, module my_gan\n" in capsys.readouterr().out
