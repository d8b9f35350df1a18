"""Labels from files through training, evaluation, sample grids and the contact sheet."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import prepare
from engine.errors import ConfigurationError
from engine.evaluate import evaluate
from engine.gin_config import loader
from engine.inference.restored_run import restore_run
from engine.input_pipeline import pictures
from engine.preview import contact_sheet
from engine.storage.run_directory import RunDirectory, read_rows
from engine.train import train
from engine.translate import translate

PALETTE = np.uint8([[0, 0, 0], [200, 30, 30], [30, 200, 30]])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set "streets": A of three colours, B a picture of the same, with maps of the ids 1 and 7."""
    folder = tmp_path_factory.mktemp("labels")
    for name in ("source/A", "source/B", "maps"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        index = np.random.default_rng(number).integers(0, 3, (9, 9)).repeat(4, 0).repeat(4, 1)
        Image.fromarray(PALETTE[index]).save(folder / "source" / "A" / f"{number}.png")
        Image.fromarray(255 - PALETTE[index]).save(folder / "source" / "B" / f"{number}.png")
        Image.fromarray(np.uint8([1, 7, 7])[index]).save(folder / "maps" / f"{number}.png")
    prepare.prepare(
        layout="paired",
        source=folder / "source",
        name="streets",
        data_dir=folder / "datasets",
        val_fraction=0.25,
        labels=["A"],
        side_map=str(folder / "maps"),
        side_map_kind="classes",
    )
    return str(folder / "datasets")


def params(data_dir, *more):
    return [
        f"DATA_DIR = {data_dir!r}",
        "DATASET = 'streets'",
        "LOAD_SIZE = 36",
        "CROP_SIZE = 32",
        "pix2pix.Pix2Pix.generator = 'unet_32'",
        "pix2pix.Pix2Pix.generator_filters = 2",
        "pix2pix.Pix2Pix.discriminator_filters = 2",
        "NORM = 'instance'",
        "TOTAL_EXAMPLES = 4",
        "BATCH_SCHEDULE = 2",
        "side_information.SideInformation.map = 'concatenate'",
        *more,
    ]


ONE_HOT = "pairs.PairedImages.label_encoding = 'one_hot'"


def test_a_run_on_one_hot_labels_trains_and_is_evaluated_as_pictures(data_dir, tmp_path, capfd):
    workdir = str(tmp_path / "run")
    train(gin_files=["gin/pix2pix.gin"], gin_params=params(data_dir, ONE_HOT), workdir=workdir)
    [row] = read_rows(RunDirectory(workdir).eval_log)
    assert np.isfinite(row["metric/psnr_db"])
    found = evaluate(workdir=workdir, split="val")
    assert found.examples == 2
    # The baseline "input" compares the colours of the labels, as it does without one-hot inputs.
    [batch] = colours(data_dir).evaluation("val", batch=2)
    shown, target = (pictures.to_picture(colours(data_dir), batch[n]).numpy() for n in ("input", "target"))
    errors = np.abs(shown.astype(float) - target)
    assert found.baselines["input"]["mae"] == pytest.approx(errors.mean(), rel=1e-6)
    [grid, *_] = sorted((tmp_path / "run" / "samples").glob("*.png"))
    grid = np.asarray(Image.open(grid))
    shown = {tuple(pixel) for pixel in grid[:32, :32].reshape(-1, 3).tolist()}
    assert shown == {tuple(pixel) for pixel in PALETTE.tolist()}
    check_translations_with_maps(workdir, data_dir, tmp_path, found)
    assert "classes" not in capfd.readouterr().out  # all are of the training


def check_translations_with_maps(workdir, data_dir, tmp_path, evaluated):
    """Pictures and their maps, resized from 36 to 32 pixels, are what evaluation makes of the examples."""
    trainer = restore_run(workdir)
    assert trainer.loop._replica_step._label_roles == {"input", "side_map"}
    [batch] = trainer.experiment.data.evaluation("val", batch=2)
    expected = trainer.experiment.task.translate(
        trainer.state.evaluation_networks, {name: batch[name] for name in ("input", "side_map")}
    )
    folder = os.path.dirname(data_dir)
    names = [name.decode() for name in batch["name"].numpy()]
    for side in "AB":
        (tmp_path / side).mkdir()
        for name in names:
            shutil.copy(os.path.join(folder, "source", side, f"{name}.png"), tmp_path / side)
    maps = os.path.join(folder, "maps")
    flags = {"workdir": workdir, "side_map": maps, "input": str(tmp_path / "A")}
    translate(**flags, output=str(tmp_path / "out"), raw=True, resize="as_trained")
    for name, output in zip(names, expected, strict=True):
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{name}.npy"), output, rtol=0, atol=1e-5)
    again = evaluate(**flags, target=str(tmp_path / "B"))
    assert again.model == pytest.approx(evaluated.model, rel=1e-6)
    assert again.baselines["mean target"] == pytest.approx(evaluated.baselines["mean target"], rel=1e-6)


def colours(data_dir):
    return loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=params(data_dir))[0].data


def test_the_contact_sheet_shows_classes(data_dir):
    sheets = []
    for more in ((), (ONE_HOT,)):
        experiment, _ = loader.load_experiment(
            gin_files=["gin/pix2pix.gin"], gin_params=params(data_dir, *more)
        )
        sheets.append(contact_sheet(experiment.data, experiment.task, examples=1))
    np.testing.assert_array_equal(*sheets)
    shown = {tuple(pixel) for pixel in sheets[0][:, :32].reshape(-1, 3).tolist()}
    assert shown == {tuple(pixel) for pixel in PALETTE.tolist()}
    assert set(np.unique(sheets[0][:, 32:64])) == {0, 255}  # the maps: two classes, black and white


def test_a_picture_becomes_what_the_network_was_trained_on(data_dir):
    experiment, _ = loader.load_experiment(
        gin_files=["gin/pix2pix.gin"], gin_params=params(data_dir, ONE_HOT)
    )
    shown = tf.constant(PALETTE[None, None] / np.float32(127.5) - 1)  # [1, 1, 3, 3]
    classes = sorted(PALETTE.tolist())
    expected = np.eye(3)[[classes.index(colour) for colour in PALETTE.tolist()]]
    np.testing.assert_array_equal(pictures.to_network(experiment.data, shown)[0, 0], expected)
    unknown = pictures.to_network(experiment.data, shown - 0.1)
    np.testing.assert_array_equal(unknown, np.zeros([1, 1, 3, 3]))


def test_pictures_are_translated_as_in_training(data_dir, tmp_path, capfd):
    workdir = str(tmp_path / "run")
    no_maps = "side_information.SideInformation.map = 'none'"
    given = params(data_dir, ONE_HOT, no_maps)
    train(gin_files=["gin/pix2pix.gin"], gin_params=given, workdir=workdir)
    colour = np.random.default_rng(99).integers(0, 3, (9, 9)).repeat(4, 0).repeat(4, 1)
    pixels = PALETTE[colour]  # 36x36, which the network does not take
    Image.fromarray(pixels).save(tmp_path / "known.png")
    translate(
        workdir=workdir, input=str(tmp_path / "known.png"), output=str(tmp_path / "out"), raw=True,
        resize="as_trained",
    )  # fmt: skip
    assert "classes" not in capfd.readouterr().out
    centres = ((2 * np.arange(32) + 1) * 36) // 64
    classes = sorted(PALETTE.tolist())
    order = np.array([classes.index(colour) for colour in PALETTE.tolist()])
    one_hot = np.eye(3, dtype=np.float32)[order[colour[centres[:, None], centres]]]
    trainer = restore_run(workdir)
    expected = trainer.experiment.task.translate(
        trainer.state.evaluation_networks, {"input": tf.constant(one_hot[None])}
    )
    np.testing.assert_allclose(np.load(tmp_path / "out" / "known.npy"), expected[0], rtol=0, atol=1e-5)
    pixels[3, 4] += 1
    Image.fromarray(pixels[:32, :32]).save(tmp_path / "unknown.png")
    translate(workdir=workdir, input=str(tmp_path / "unknown.png"), output=str(tmp_path / "out"))
    assert "with pixels that are none of the classes of the training" in capfd.readouterr().out


def test_the_setting_belongs_to_the_configuration(data_dir):
    _, text = loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=params(data_dir))
    assert "PairedImages.label_encoding = 'colours'" in text
    wrong = params(data_dir, "pairs.PairedImages.label_encoding = 'x'")
    with pytest.raises((ConfigurationError, ValueError), match="label_encoding"):
        loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=wrong)
