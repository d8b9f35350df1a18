"""Side information from files to translated pictures, through the programs."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import engine.translate
from data import prepare
from engine.errors import ConfigurationError
from engine.evaluate import evaluate
from engine.gin_config import loader
from engine.inference.restored_run import restore_run
from engine.pictures.side_inputs import parse_side_vector
from engine.preview import contact_sheet
from engine.storage.run_directory import RunDirectory, read_rows
from engine.train import train
from models.networks.conditioning import SideInputs
from models.networks.generators import GENERATORS, Generator
from models.networks.layers import Conv, image_input
from models.pix2pix import Pix2Pix

GIN = [
    "pix2pix.Pix2Pix.generator = 'tiny'",
    "pix2pix.Pix2Pix.generator_filters = 2",
    "pix2pix.Pix2Pix.discriminator_filters = 2",
    "side_information.SideInformation.vector = 'film'",
    "side_information.SideInformation.map = 'concatenate'",
    "side_information.SideInformation.film_units = 4",
    "CROP_SIZE = 24",
    "LOAD_SIZE = 0",
    "TOTAL_EXAMPLES = 2",
    "BATCH_SCHEDULE = 2",
    "DATASET = 'seasons'",
]


def tiny_generator(*, name, input_channels, output_channels, side, **_):
    """Compiled soon."""
    image, inputs = image_input(input_channels), SideInputs(side)
    x = Conv(4, 3, padding=1, name="first")(inputs.concatenated(image))
    x = keras.layers.ReLU(name="relu")(inputs.modulated(x, "first"))
    x = Conv(output_channels, 3, padding=1, activation="tanh", name="last")(x)
    return keras.Model(inputs.with_image(image), x, name=name)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)


def test_classes_from_a_file_to_translated_pictures(translate, tmp_path, monkeypatch):
    monkeypatch.setitem(GENERATORS, "tiny", Generator(tiny_generator, size_multiple=1, smallest_size=8))
    seasons = ["summer", "winter"] * 4
    for side in "AB":
        (tmp_path / "source" / side).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(picture(number)).save(tmp_path / "source" / side / f"{number}.png")
    maps = {number: np.uint16(16 * picture(number + 50)[..., :1]) for number in range(8)}
    (tmp_path / "maps").mkdir()
    for number, values in maps.items():
        (tmp_path / "maps" / f"{number}.png").write_bytes(tf.io.encode_png(values).numpy())
    (tmp_path / "seasons.csv").write_text("\n".join(f"{n},{season}" for n, season in enumerate(seasons)))
    data_dir = str(tmp_path / "datasets")
    prepare.prepare(
        layout="paired", source=tmp_path / "source", name="seasons", data_dir=data_dir, val_fraction=0.25,
        side_classes=str(tmp_path / "seasons.csv"), side_map=str(tmp_path / "maps"),
        value_range={"side_map": (0, 4095)},
    )  # fmt: skip
    workdir = str(tmp_path / "run")
    params = [*GIN, f"DATA_DIR = {data_dir!r}"]
    train(gin_files=["gin/pix2pix.gin"], gin_params=[*params, "NORM = 'instance'"], workdir=workdir)
    [evaluated] = read_rows(RunDirectory(workdir).eval_log)
    assert evaluated["split"] == "val" and np.isfinite(evaluated["metric/psnr_db"])

    source = tmp_path / "source" / "A" / "0.png"
    flags = {"workdir": workdir, "input": source, "output": tmp_path / "out", "raw": True}
    trainer = restore_run(workdir)

    x = picture(0)[np.newaxis].astype(np.float32) / 127.5 - 1
    seen = maps[0][np.newaxis].astype(np.float32) / 4095 * 2 - 1
    generator = trainer.state.networks["generator"]
    flags["side_map"] = tmp_path / "maps"
    assert translate(**flags, side_vector="0.25,-2")[0] == 0
    expected = generator([x, np.array([[0.25, -2]], np.float32), seen], training=False)[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "0.npy"), expected, rtol=0, atol=1e-5)
    # The run saw so little that classes hardly matter yet; that they do at all shows the vector arrives.
    other = generator([x, np.array([[5000, 0]], np.float32), seen], training=False)[0]
    assert np.abs(expected - other).max() > 1e-4

    # A class for all pictures in two folders, with their maps.
    winters = {name: str(tmp_path / "winter" / side) for name, side in (("input", "A"), ("target", "B"))}
    for folder, side in zip(winters.values(), "AB", strict=True):
        os.makedirs(folder)
        for number in (1, 3):
            shutil.copy(tmp_path / "source" / side / f"{number}.png", folder)
    measured = evaluate(workdir=workdir, **winters, side_map=str(tmp_path / "maps"), side_vector="winter")
    levels = []
    for number in (1, 3):
        images = [picture(number) / 127.5 - 1, np.array([0, 1]), maps[number] / 4095 * 2 - 1]
        output = generator([np.float32(image)[np.newaxis] for image in images], training=False)[0]
        levels.append(np.floor((output.numpy().astype(np.float64) + 1) * 127.5 + 0.5) - picture(number))
    assert measured.model["mae"] == pytest.approx(np.mean(np.abs(levels)), abs=1e-3)

    (tmp_path / "maps" / "0.png").unlink()
    (tmp_path / "maps" / "2.png").write_bytes(tf.io.encode_png(maps[2][:9]).numpy())
    flags |= {"input": tmp_path / "source" / "A", "side_vector": "winter"}
    code, told, errors = translate(**flags)
    assert code == 2 and "2 of 8 pictures are refused" in errors and "translated 6 pictures" in told
    assert f"A/0.png: has no map named '0' in {tmp_path / 'maps'}; add it" in told
    assert "2.png: is a map of 24x9 for a picture of 24x24; give both the same size" in told
    for given, text in (
        (None, "no --side_map given, which the run's networks take"),
        ("x", "no such folder"),
    ):
        code, _, errors = translate(**(flags | {"side_map": given}))
        assert code == 2 and errors.count("\n") == 1 and text in errors
    # A run whose dataset.json is of older code, which did not record how maps are stored.
    path = RunDirectory(workdir).data
    recorded = json.loads(open(path).read())
    assert recorded["images"].pop("side_map")["value_range"] == [0, 4095]
    with open(path, "w") as file:
        json.dump(recorded, file)
    code, _, errors = translate(**flags)
    assert code == 2 and "did not record how side maps are stored; remove it" in errors
    assert evaluate(workdir=workdir, split="val").examples == 2
    os.remove(path)
    (tmp_path / "out" / "7.npy").unlink()
    assert translate(**(flags | {"input": tmp_path / "source" / "A" / "7.png"}))[0] == 0


def test_the_contact_sheet_shows_maps():
    class Data:
        colour_space = "rgb"

        @staticmethod
        def batches(**_):
            shapes = {"target": 3, "side_map": 1, "input": 3}
            images = {
                name: tf.fill([2, 8, 8, channels], value)
                for value, (name, channels) in zip((-1.0, 0.0, 1.0), shapes.items(), strict=True)
            }
            return tf.data.Dataset.from_tensors(images | {"side_vector": tf.zeros([2, 5])})

    sheet = contact_sheet(Data, Pix2Pix(), examples=2)
    np.testing.assert_array_equal(sheet[4, [4, 12, 20]], [[255] * 3, [128] * 3, [0] * 3])


def test_numbers_and_classes_for_translate():
    def given(text, class_names=(), size=2):
        example = {"side_vector": tf.TensorSpec([size], tf.float32)}
        return parse_side_vector(("side_vector",), example, side_vector=text, class_names=class_names)

    assert given("winter", ("summer", "winter")) == [0, 1]
    assert given("1", ("1", "2")) == [1, 0]
    assert given("0.5,0.5", ("1", "2")) == given("0.5, 5e-1") == [0.5, 0.5]
    for wrong, expected in (
        (lambda: given(None, ("summer", "winter")), "no --side_vector given, .* one of summer, winter, or 2"),
        (lambda: given("1,0,0"), "--side_vector=1,0,0: must be 2 numbers such as 0.5,0.5"),
        (lambda: given("1,nan"), "2 numbers"),
        (lambda: given("1,x"), "2 numbers"),
        (lambda: given("", size=1), "1 number such as 0.5"),
    ):
        with pytest.raises(ConfigurationError, match=expected):
            wrong()


def test_what_translate_cannot_give_is_refused():
    example = {}
    with pytest.raises(ConfigurationError, match="take 'depth' with each picture, for which there is no"):
        parse_side_vector(("depth",), example, side_vector=None, class_names=())
    for names in ((), ("side_map",)):
        with pytest.raises(ConfigurationError, match="--side_vector=1: the run's networks take none; leave"):
            parse_side_vector(names, example, side_vector="1", class_names=())
        assert parse_side_vector(names, example, side_vector=None, class_names=()) is None
    for flag in ("side_vector", "side_map"):
        with pytest.raises(ConfigurationError, match=f"--{flag}=1: goes with --workdir"):
            engine.translate.translate(input="a.png", output="b", torch_checkpoint="c.pth", **{flag: "1"})


def test_a_configuration_names_it():
    experiment, text = loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=GIN)
    assert experiment.task.side_inputs == ("side_vector", "side_map")
    assert "SideInformation.film_units = 4" in text
    wrong = [*GIN, "side_information.SideInformation.vector = 'x'"]
    with pytest.raises(ConfigurationError, match="unknown; use one of none, concatenate, film"):
        loader.load_experiment(gin_files=["gin/pix2pix.gin"], gin_params=wrong)
