"""engine.export as a user starts it: what it writes, and what it refuses."""

import json
import os
import resource

import numpy as np
import pytest
import tensorflow as tf
from absl.flags import FlagValues
from PIL import Image

import engine.export
from data import prepare
from engine.cli import program
from engine.exporting import formats, onnx_file, portable_network
from engine.gin_config import loader
from engine.input_pipeline.recorded_data import describe
from engine.outer_loop.trainer import Trainer
from engine.storage.async_checkpointer import AsyncCheckpointer
from engine.storage.data_fingerprint import write_fingerprint
from engine.storage.run_directory import RunDirectory, append_row
from tests.engine.exporting.conftest import randomise

SIZE = 32
SETTINGS = [
    "pix2pix.Pix2Pix.generator = 'unet_32'",
    "pix2pix.Pix2Pix.generator_filters = 2",
    "pix2pix.Pix2Pix.discriminator_filters = 2",
    "DATASET = 'mine'",
    "LOAD_SIZE = 0",
    f"CROP_SIZE = {SIZE}",
    "TOTAL_EXAMPLES = 8",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run directory that a training could have left, at 0 examples; its weights are random."""
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(0)
    for number in range(10):
        for side in "AB":
            (folder / "source" / side).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "source" / side / f"{number}.png")
    data_dir = str(folder / "datasets")
    prepare.prepare(
        layout="paired",
        source=folder / "source",
        name="mine",
        data_dir=data_dir,
        val_fraction=0.2,
        test_fraction=0.3,
    )
    experiment, text = loader.load_experiment(
        gin_files=["gin/pix2pix.gin"], gin_params=[*SETTINGS, f"DATA_DIR = {data_dir!r}"]
    )
    run = RunDirectory(str(folder / "run"))
    run.create()
    run.write_config(text)
    run.write_data(describe(experiment.data))
    write_fingerprint(run, experiment.data)
    trainer = Trainer(experiment, run)
    randomise(trainer.state.networks["generator"])
    checkpointer = AsyncCheckpointer(is_chief=True)
    checkpointer.save(trainer.state, run.checkpoints, keep=1)
    checkpointer.close()
    for split, more in (("val", {}), ("test", {"metric_low/psnr_db": 8.5, "metric_high/psnr_db": 10.25})):
        append_row(run.eval_log, {"examples": 0, "split": split, "metric/psnr_db": 9.25, **more})
    append_row(run.eval_log, {"examples": 0, "split": "test, dropout on", "metric/psnr_db": 77.0})
    append_row(run.eval_log, {"examples": 8, "split": "test", "metric/psnr_db": 88.0})
    return run.path


@pytest.fixture
def run_export(capfd, workdir):
    """Runs engine.export in this process: exit code, and what it wrote to stdout and stderr."""

    def run(**flags):
        values = FlagValues()
        engine.export.define_flags(values)
        flags = {"workdir": workdir, "examples": 2} | flags
        rest = values(["export", *(f"--{name}={value}" for name, value in flags.items())])
        capfd.readouterr()
        code = program.exit_code(engine.export.main, rest, values)
        return code, *capfd.readouterr()

    return run


def assert_refused(result, expected, folder):
    code, _, errors = result
    assert code == 2 and errors.count("\n") == 1 and "Traceback" not in errors, errors
    assert expected in errors
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_an_export_and_its_card(run_export, translate, workdir, tmp_path):
    output = tmp_path / "exports" / "mine"
    code, told, errors = run_export(output=output)
    assert (code, errors) == (0, ""), errors
    assert "largest difference 0/255" in told and "2 examples of the split 'test'" in told
    assert sorted(os.listdir(output)) == ["README.md", "gantry.json", "samples.png", "saved_model"]
    assert os.listdir(output.parent) == ["mine"]

    facts = json.loads((output / "gantry.json").read_text())
    assert facts["task"] == "Pix2Pix" and facts["direction"] == "AtoB"
    assert facts["inputs"]["image"]["shape"] == [None, None, None, 3]
    assert facts["inputs"]["image"]["stored_as"]["dtype"] == "uint8"
    assert facts["sizes"] == {
        "trained_height_width": [SIZE, SIZE],
        "multiple": 32,
        "smallest": 32,
        "output_by_input": 1.0,
    }
    assert facts["run"]["position_examples"] == 0
    assert facts["data_set"]["name"] == "mine" and len(facts["data_set"]["fingerprint_sha256"]) == 64
    assert facts["versions"]["tensorflow"] == tf.__version__
    with open(f"{workdir}/config.gin") as file:
        assert facts["configuration"] == file.read()
    card = (output / "README.md").read_text()
    assert "On the split `test`, with 95 % intervals of the mean" in card
    assert "9.25 (8.50 to 10.25)" in card
    assert "77.00" not in card and "88.00" not in card  # of another mode or position
    samples = np.asarray(Image.open(output / "samples.png"))
    assert samples.shape == (2 * SIZE, 3 * SIZE, 3)

    # What engine.translate writes, for a picture that has to be neither padded nor resized.
    source = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(source)
    assert translate(workdir=workdir, input=source, output=tmp_path / "out", raw=True)[0] == 0
    signatures = tf.saved_model.load(str(output / "saved_model" / "1")).signatures
    x = np.asarray(Image.open(source))[np.newaxis] / np.float32(127.5) - 1
    found = signatures["serving_default"](image=tf.constant(x))["output"][0]
    np.testing.assert_allclose(found, np.load(tmp_path / "out" / "in.npy"), rtol=0, atol=1e-5)
    png = signatures["encoded"](image_bytes=tf.constant([source.read_bytes()]))["png_bytes"][0].numpy()
    (tmp_path / "exported.png").write_bytes(png)
    exported, run = (np.asarray(Image.open(tmp_path / name)) for name in ("exported.png", "out/in.png"))
    assert np.abs(exported.astype(int) - run).max() <= 1


def test_an_export_is_replaced_only_if_asked(run_export, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.export, "open_for_export", stop_before_work)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "gantry.json").write_text("old")
    refused = run_export(output=tmp_path / "mine")
    assert_refused(refused, "holds an export already; choose another folder, or add --overwrite", tmp_path)
    with pytest.raises(Stopped):
        run_export(output=tmp_path / "mine", overwrite=True)
    assert os.listdir(tmp_path) == ["mine"] and (tmp_path / "mine" / "gantry.json").read_text() == "old"
    (tmp_path / "mine" / "gantry.json").rename(tmp_path / "mine" / "notes.txt")
    refused = run_export(output=tmp_path / "mine", overwrite=True)
    assert_refused(refused, "holds other files; choose another folder", tmp_path)
    refused = run_export(output=tmp_path / "mine" / "notes.txt")
    assert_refused(refused, "is a file; choose another name", tmp_path)


class Stopped(RuntimeError):
    """In place of work."""


def stop_before_work(*args, **kwargs):
    raise Stopped


def test_replacing_leaves_no_trace(tmp_path):
    from engine.exporting.export_folder import new_export

    for content in ("old", "new"):
        with new_export(str(tmp_path / "mine"), overwrite=True) as folder:
            with open(os.path.join(folder, "gantry.json"), "w") as file:
                file.write(content)
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == ["gantry.json"]
    assert (tmp_path / "mine" / "gantry.json").read_text() == "new"
    with new_export("ram://exports/mine", overwrite=False) as folder:
        os.makedirs(os.path.join(folder, "a", "b"))
        for name in ("a/b/c", "gantry.json"):
            with open(os.path.join(folder, name), "w") as file:
                file.write(name)
    assert tf.io.gfile.GFile("ram://exports/mine/a/b/c").read() == "a/b/c"
    assert tf.io.gfile.exists("ram://exports/mine/gantry.json")


def test_what_cannot_be_exported_is_refused_in_one_line(run_export, tmp_path):
    (tmp_path / "file").write_text("")
    for flags, expected in (
        ({"output": ""}, "no --output given"),
        ({"format": "torch"}, "--format=torch: unknown; use saved_model, keras, tflite, onnx"),
        ({"format": ""}, "--format, --dtype: must name at least one each"),
        ({"dtype": "int4"}, "--dtype=int4: unknown"),
        ({"dtype": "int8"}, "--dtype=int8: not known in the format saved_model; add --format=tflite"),
        ({"format": "keras,tflite", "dtype": "int8"}, "--format=keras: only has float32, float16"),
        ({"examples": 0}, "--examples=0: must be at least 1"),
        ({"calibration_examples": 0}, "--calibration_examples=0: must be at least 1"),
        ({"weights": "best"}, "--weights=best: unknown"),
        ({"norm_mode": "own"}, "--norm_mode=own: unknown"),
        ({"workdir": tmp_path / "none"}, "holds no run (no config.gin)"),
        ({"checkpoint": 4000}, "--checkpoint=4000: there is no such checkpoint"),
        ({"checkpoint": "best"}, "no checkpoint"),
        ({"output": tmp_path / "file" / "mine"}, "cannot be"),
    ):
        assert_refused(run_export(**{"output": tmp_path / "mine"} | flags), expected, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_modes_that_the_run_does_not_have(run_export, tmp_path):
    for flags, expected in (
        ({"weights": "averaged"}, "--weights=averaged: the run keeps no moving averages"),
        ({"direction": "BtoA"}, "--direction=BtoA: the run translates AtoB only"),
    ):
        assert_refused(run_export(output=tmp_path / "mine", **flags), expected, tmp_path)


def test_packages_of_onnx_are_asked_for(run_export, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_CONVERTER", "no_such_package")
    refused = run_export(output=tmp_path / "mine", format="onnx")
    assert_refused(refused, "--format=onnx: needs no_such_package, which is not installed", tmp_path)


def test_an_export_that_differs_from_the_run_is_refused(run_export, tmp_path, monkeypatch):
    def wrong(conv, norm):
        return [array * 1.5 for array in (conv.get_weights()[0], norm.beta.numpy())]

    monkeypatch.setattr(portable_network, "folded_weights", wrong)
    flags = {"fast": True, "norm_mode": "moving_statistics", "format": "keras"}
    refused = run_export(output=tmp_path / "mine", **flags)
    assert_refused(refused, "generator.keras: differs from the run by up to", tmp_path)
    assert "nothing was written" in refused[2] and not os.listdir(tmp_path)


def test_a_full_disk_leaves_nothing(run_export, tmp_path):
    """The operating system refuses larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for format in ("saved_model", "keras"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
        try:
            refused = run_export(output=tmp_path / "mine", format=format)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert_refused(refused, "cannot be written", tmp_path)
        assert not os.listdir(tmp_path)


def test_without_the_data_set_noise_is_compared_and_said(run_export, tmp_path):
    code, told, errors = run_export(
        output=tmp_path / "mine", data_dir=tmp_path / "none", format="keras", dtype="float16"
    )
    assert (code, errors) == (0, "")
    assert "compared on 2 pictures of fixed noise, because the data set cannot be read" in told
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "Input and output: 2 pictures of fixed noise" in card
    assert json.loads((tmp_path / "mine" / "gantry.json").read_text())["files"][0]["dtype"] == "float16"
    assert formats.DTYPES["keras"] == ("float32", "float16")
