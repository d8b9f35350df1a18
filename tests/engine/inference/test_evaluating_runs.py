"""engine.evaluate in every mode, by metrics of choice, and beside a run in training."""

import logging
import os
import shutil
import signal
import threading
import time

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from absl.flags import FlagValues

import engine.evaluate
from engine.cli import program
from engine.errors import ConfigurationError
from engine.evaluate import evaluate, follow
from engine.evaluation.text_table import table
from engine.feature_extractor import FeatureExtractor
from engine.inference import following
from engine.inference.restored_run import restore_run
from engine.storage import checkpoints
from engine.storage.run_directory import RunDirectory, read_rows
from engine.train import train
from models.networks.dropout import Dropout
from models.networks.generators import GENERATORS, Generator
from models.networks.layers import Conv, image_input
from models.networks.norms import normalise

POSITIONS = [2, 4, 6]
BUILT = []
"""The networks that were built, for counting."""


def tiny_generator(*, name, input_channels, output_channels, inference_norm, **_):
    """Compiled soon, with batch norm and dropout."""
    BUILT.append(name)
    image = image_input(input_channels)
    x = Conv(4, 3, padding=1, name="first")(image)
    x = normalise(x, "batch", inference_norm=inference_norm, name="norm")
    x = Dropout(0.5, name="dropout")(x)
    x = Conv(output_channels, 3, padding=1, activation="tanh", name="last")(x)
    return keras.Model(image, x, name=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, synthetic_datasets):
    """The directory of a run of 6 examples, with three checkpoints and an EMA."""
    workdir = str(tmp_path_factory.mktemp("trained") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "tiny", Generator(tiny_generator, size_multiple=4, smallest_size=8))
        train(
            gin_files=["gin/quickstart.gin"],
            gin_params=[
                "pix2pix.Pix2Pix.generator = 'tiny'",
                "pix2pix.Pix2Pix.discriminator_filters = 2",
                "pix2pix.Pix2Pix.ema_decay = 0.9",
                "CROP_SIZE = 32",
                "LOAD_SIZE = 32",
                "LEARNING_RATE = 0.02",
                "TOTAL_EXAMPLES = 6",
                "BATCH_SCHEDULE = 2",
                "SAVE_EVERY = 2",
                "SAMPLE_EVERY = 0",
                "EVALUATE_EVERY = 0",
                f"DATA_DIR = {synthetic_datasets!r}",
            ],
            workdir=workdir,
        )
        assert checkpoints.list_checkpoints(RunDirectory(workdir).checkpoints) == POSITIONS
        yield workdir


@pytest.fixture
def run_evaluate(capfd):
    """Runs engine.evaluate in this process: exit code, and what it wrote to stdout and stderr."""

    def run(*arguments):
        values = FlagValues()
        engine.evaluate.define_flags(values)
        rest = values(["evaluate", *arguments])
        capfd.readouterr()
        code = program.exit_code(engine.evaluate.main, rest, values, takes_arguments=True)
        return code, *capfd.readouterr()

    return run


def test_weights_and_modes_are_those_of_the_networks(trained):
    found = {
        name: evaluate(workdir=trained, **settings)
        for name, settings in {
            "": {},
            ", raw weights": {"weights": "raw"},
            ", batch norm with moving_statistics": {"norm_mode": "moving_statistics"},
            ", dropout on": {"dropout": True},
        }.items()
    }
    assert len({each.model["psnr_db"] for each in found.values()}) == 4
    for suffix, each in found.items():
        assert each.split == f"test{suffix}" and each.position == 6
        assert each.baselines == found[""].baselines
    rows = read_rows(RunDirectory(trained).eval_log)[-4:]
    assert [row["split"] for row in rows] == [f"test{suffix}" for suffix in found]
    heading = table(found[""], split="test").splitlines()[1]
    assert heading == "averaged weights; batch norm with batch_statistics; dropout off"
    assert "raw weights" in table(found[", raw weights"], split="test").splitlines()[1]
    again = evaluate(workdir=trained, weights="averaged", norm_mode="batch_statistics", dropout=True)
    assert again.split == "test, dropout on" and again.model == found[", dropout on"].model

    # The networks themselves, asked without the evaluator.
    trainer = restore_run(trained)
    (batch,) = trainer.experiment.data.evaluation("test", batch=60).take(1)
    outputs = trainer.state.networks["generator"](batch["input"]).numpy()
    levels = [
        np.clip(np.floor((x.astype(np.float64) + 1) * 127.5 + 0.5), 0, 255)
        for x in (outputs, batch["target"].numpy())
    ]
    mse = np.mean((levels[0] - levels[1]) ** 2, axis=(1, 2, 3))
    psnr_db = found[", raw weights"].image_values["psnr_db"]
    np.testing.assert_allclose(psnr_db, 10 * np.log10(255**2 / mse), atol=1e-3)


def test_what_a_run_cannot_be_evaluated_by_is_refused_in_one_line(trained, run_evaluate):
    for flags, message in (
        (["--norm_mode=none"], "--norm_mode=none: unknown"),
        (["--metrics=ms_ssim,vmaf"], "--metrics = 'vmaf': unknown"),
        (["--metrics=ms_ssim"], "'ms_ssim': cannot measure these images"),
        (["--lpips_weights=nowhere.pth"], "nowhere.pth"),
        (["--features_weights=nowhere.h5"], "nowhere.h5': cannot be read"),
        (
            ["--features_weights=imagenet", "--features_network=Inception"],
            "'Inception': not an image classifier",
        ),
        (["--features_network=MobileNetV2"], "--features_network=MobileNetV2: goes with --features_weights"),
        (["--lpips_network=vgg"], "--lpips_network=vgg: goes with --lpips_weights"),
        (["--follow", "--checkpoint=best"], "--follow: evaluates all checkpoints of one run"),
    ):
        code, _, errors = run_evaluate(f"--workdir={trained}", *flags)
        assert code == 2 and message in errors and errors.count("\n") == 1, (flags, errors)


def test_kid_by_other_features_has_a_row_of_its_own(trained):
    class Brightness(FeatureExtractor):
        """The means of the three channels."""

        identity = "brightness"

        def build(self):
            return lambda images, value_range=None: tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])

    usual, other = evaluate(workdir=trained), evaluate(workdir=trained, extractor=Brightness())
    assert other.split == "test, brightness" and other.model == usual.model
    rows = read_rows(RunDirectory(trained).eval_log)[-2:]
    assert [row["split"] for row in rows] == ["test", "test, brightness"]
    assert [row["extractor"] for row in rows] == ["random features 1", "brightness"]
    # The same from the pictures themselves.
    trainer = restore_run(trained)
    (batch,) = trainer.experiment.data.evaluation("test", batch=60).take(1)
    outputs = trainer.state.evaluation_networks["generator"](batch["input"]).numpy()
    made, real = (
        np.floor((np.clip(x.astype(np.float64), -1, 1) + 1) * 127.5 + 0.5).mean((1, 2))
        for x in (outputs, batch["target"].numpy())
    )
    difference = made.mean(0) - real.mean(0)
    covariances = np.cov(made.T), np.cov(real.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root)
    np.testing.assert_allclose(other.distances["fid"], expected, rtol=1e-3)
    assert usual.distances["fid"] != other.distances["fid"]


def test_layers_that_cannot_be_switched_on_are_named(trained, monkeypatch):
    monkeypatch.setattr("tests.engine.inference.test_evaluating_runs.Dropout", keras.layers.Dropout)
    with pytest.raises(ConfigurationError, match="--dropout: Dropout 'dropout' cannot be active"):
        evaluate(workdir=trained, dropout=True)


def test_follow_evaluates_each_checkpoint_once_as_it_arrives(trained, tmp_path, run_evaluate):
    source, run = RunDirectory(trained), RunDirectory(str(tmp_path / "run"))
    run.create()

    def copy(position):
        """As a training does: a checkpoint appears whole."""
        name = f"{position:08d}"
        shutil.copytree(f"{source.checkpoints}/{name}", f"{run.checkpoints}/writing-{name}")
        (tmp_path / "run" / "checkpoints" / f"writing-{name}").rename(f"{run.checkpoints}/{name}")

    def rows():
        return [row["examples"] for row in read_rows(run.eval_log)]

    def arrive():
        time.sleep(0.3)
        shutil.copy(source.config, run.config)
        shutil.copy(source.data, run.data)
        for position in POSITIONS:
            copy(position)
            deadline = time.monotonic() + 120
            while position not in rows() and time.monotonic() < deadline:
                time.sleep(0.05)
            shutil.rmtree(f"{run.checkpoints}/{position:08d}") if position < 6 else None
        shutil.copy(source.done, run.done)

    thread = threading.Thread(target=arrive)
    BUILT.clear()
    thread.start()
    found = list(follow(workdir=run.path, split="val", poll_sec=0.05))
    thread.join()
    assert rows() == [each.position for each in found] == POSITIONS
    assert BUILT == ["generator"] * 2  # the network and its average, once
    assert len({each.model["psnr_db"] for each in found}) == 3
    single = evaluate(workdir=trained, split="val", checkpoint="4")
    assert found[1].model == single.model

    copy(4)
    code, told, errors = run_evaluate(f"--workdir={run.path}", "--split=val", "--follow")
    assert (code, errors) == (0, "") and told == f"{run.path}: complete; evaluated 0 checkpoints\n"
    assert not (tmp_path / "run" / "lock").exists()


@pytest.mark.parametrize(
    "when, number, done",
    [("waiting", signal.SIGINT, POSITIONS), ("in an evaluation", signal.SIGTERM, POSITIONS[:1])],
)
def test_follow_that_is_stopped_keeps_what_it_has_and_goes_on(
    trained, tmp_path, monkeypatch, run_evaluate, when, number, done
):
    run = RunDirectory(str(tmp_path / "run"))
    shutil.copytree(trained, run.path, ignore=shutil.ignore_patterns("eval.jsonl", "evaluations", "DONE"))
    flags = f"--workdir={run.path}", "--split=val", "--follow"

    def rows():
        return [row["examples"] for row in read_rows(run.eval_log)]

    restore, sleep = following._restore, time.sleep

    def restore_or_stop(evaluator, position):
        if when == "in an evaluation" and position == 4:
            os.kill(os.getpid(), number)
        return restore(evaluator, position)

    def stop(sec):
        os.kill(os.getpid(), number)
        sleep(sec)

    before = signal.signal(number, signal.default_int_handler)  # as `run_program` does
    try:
        with monkeypatch.context() as patch:
            patch.setattr(following, "_restore", restore_or_stop)
            patch.setattr(following.time, "sleep", stop)
            code, told, errors = run_evaluate(*flags)
    finally:
        signal.signal(number, before)
    assert (code, rows()) == (42, done) and told.count("val: ") == len(done)
    assert errors == (
        f"--follow: stopped after {len(done)} checkpoint{'s' if len(done) > 1 else ''}; the same command "
        "continues with the next one\n"
    )
    shutil.copy(f"{trained}/DONE", run.done)
    assert run_evaluate(*flags)[0] == 0 and rows() == POSITIONS


def test_follow_passes_over_a_checkpoint_that_is_removed_while_it_is_read(
    trained, tmp_path, monkeypatch, caplog
):
    run = RunDirectory(str(tmp_path / "run"))
    shutil.copytree(trained, run.path, ignore=shutil.ignore_patterns("eval.jsonl"))
    load = checkpoints.load

    def remove_and_load(state, directory, position):
        if position == 2:
            shutil.rmtree(f"{directory}/{position:08d}")
        load(state, directory, position)

    monkeypatch.setattr(checkpoints, "load", remove_and_load)
    (tmp_path / "run" / "checkpoints" / "00000004" / "manifest.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        found = list(follow(workdir=run.path, split="val", poll_sec=0.05))
    assert [each.position for each in found] == [6]
    assert "checkpoint 2 is passed over: it was removed before it was read" in caplog.text
    assert "checkpoint 4 is passed over" in caplog.text and "damaged" in caplog.text
