"""engine.translate treats a picture as the run's data set was prepared, not by what its file says."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from absl.flags import FlagValues
from PIL import Image

import engine.evaluate
from data import prepare
from engine.cli import program
from engine.errors import ConfigurationError
from engine.evaluate import evaluate
from engine.inference.restored_run import restore_run
from engine.input_pipeline.recorded_data import describe
from engine.pictures.picture_input import read_picture
from engine.storage.run_directory import RunDirectory, read_rows
from engine.train import train
from models.networks.generators import GENERATORS, Generator
from models.networks.layers import Conv, image_input

SIZE = 24
"""Pixels of all pictures, high and wide."""

TINY = [
    "pix2pix.Pix2Pix.generator = 'tiny'",
    "pix2pix.Pix2Pix.generator_filters = 2",
    "pix2pix.Pix2Pix.discriminator_filters = 2",
    "NORM = 'instance'",
    "TOTAL_EXAMPLES = 2",
    "BATCH_SCHEDULE = 2",
    "SAMPLE_EVERY = 0",
    "DATASET = 'mine'",
]


def tiny_generator(*, name, input_channels, output_channels, **_):
    """Compiled soon; its outputs depend on neighbours."""
    image = image_input(input_channels)
    x = keras.layers.ReLU(name="relu")(Conv(4, 3, padding=1, name="first")(image))
    x = Conv(output_channels, 3, padding=1, activation="tanh", name="last")(x)
    return keras.Model(image, x, name=name)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(GENERATORS, "tiny", Generator(tiny_generator, size_multiple=4, smallest_size=8))


@pytest.fixture
def train_run(tmp_path):
    """Prepares tmp_path/source and trains on it: gives the run directory."""

    def run(*params, gin_file="gin/pix2pix.gin", layout="paired", settings=TINY, size=(0, SIZE), **prepared):
        data_dir = str(tmp_path / "datasets")
        prepare.prepare(layout=layout, source=tmp_path / "source", name="mine", data_dir=data_dir, **prepared)
        sizes = [f"LOAD_SIZE = {size[0]}", f"CROP_SIZE = {size[1]}"]
        workdir = str(tmp_path / "run")
        train(
            gin_files=[gin_file],
            gin_params=[*settings, *sizes, f"DATA_DIR = {data_dir!r}", *params],
            workdir=workdir,
        )
        return workdir

    return run


def smooth(*shape, seed=0):
    """Smooth random values from 0 to 1."""
    coarse = np.random.default_rng(seed).random((4, 4, shape[-1]))
    values = np.clip(tf.image.resize(coarse, shape[:2], "bicubic").numpy(), 0, 1)
    return values.squeeze() if shape[-1] == 1 else values


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, metadata=None)
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    else:
        Image.fromarray(pixels).save(path)
    return path


def load(path):
    """[H, W, C], read by libraries that the project's reader does not use."""
    if str(path).endswith(".tif"):
        pixels = tifffile.imread(path)
    else:
        data = tf.io.read_file(str(path))
        is_deep = data.numpy()[24] == 16
        pixels = tf.io.decode_png(data, dtype=tf.uint16 if is_deep else tf.uint8).numpy()
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


KINDS = {  # extension, channels, dtype, (low, high) of the run, --value_range
    "8 bits": (".png", 3, np.uint8, (0, 255), None),
    "12 bits in 16": (".png", 1, np.uint16, (0, 4095), (0, 4095)),
    "16 bits": (".png", 3, np.uint16, (0, 65535), None),
    "floats": (".tif", 1, np.float32, (-3.5, 260.0), (-3.5, 260.0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_runs_own_pictures_are_translated_as_they_are_evaluated(translate, train_run, tmp_path, kind):
    extension, channels, dtype, (low, high), given = KINDS[kind]
    for number in range(6):
        for side, brightness in (("A", 0.9), ("B", 0.4)):
            values = low + (high - low) * brightness * smooth(SIZE, SIZE, channels, seed=number)
            split = "train" if number < 3 else "val"
            save(tmp_path / "source" / split / side / f"{number}{extension}", values.astype(dtype))
    workdir = train_run(**({"value_range": given} if given else {}))

    sources = tmp_path / "source" / "val" / "A"
    code, told, errors = translate(workdir=workdir, input=sources, output=tmp_path / "out", raw=True)
    assert (code, errors) == (0, "") and "note" not in told
    generator = restore_run(workdir).state.evaluation_networks["generator"]
    signal_to_noise_db = []
    for name in ("3", "4", "5"):
        x = (load(sources / f"{name}{extension}").astype(np.float64) - low) / (high - low) * 2 - 1
        raw = np.load(tmp_path / "out" / f"{name}.npy")
        np.testing.assert_allclose(raw, generator(x[np.newaxis])[0], rtol=0, atol=1e-5)
        written = load(tmp_path / "out" / f"{name}{extension}")
        expected = low + (raw.astype(np.float64) + 1) / 2 * (high - low)
        assert written.dtype == dtype and written.shape == x.shape
        rounding = 0.5 if dtype != np.float32 else 0
        np.testing.assert_allclose(written, expected, rtol=0, atol=rounding + 1e-5 * (high - low))
        target = load(tmp_path / "source" / "val" / "B" / f"{name}{extension}")
        # Evaluation compares what translate writes, at the depth of the data.
        errors = written.astype(np.float64) - target
        signal_to_noise_db.append(10 * np.log10((high - low) ** 2 / np.mean(errors**2)))
    measured = evaluate(workdir=workdir, split="val")
    assert np.mean(signal_to_noise_db) == pytest.approx(measured.model["psnr_db"], abs=1e-3)
    assert_same(evaluate(workdir=workdir, input=str(sources), target=str(sources.parent / "B")), measured)


def assert_same(evaluation, expected):
    """Both measured the same images; the sums may be in another order."""
    assert (
        evaluation.examples == expected.examples and evaluation.baselines.keys() == expected.baselines.keys()
    )
    assert evaluation.model == pytest.approx(expected.model, rel=1e-6)
    for name, means in expected.baselines.items():
        assert evaluation.baselines[name] == pytest.approx(means, rel=1e-6)


def test_pictures_become_what_the_data_set_stores(train_run, tmp_path):
    """Grey, colour and transparent pictures in one folder, and the records that data.prepare made of them."""
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (4,), (3,), (), (4,), (3,), (3,)]
    for number, shape in enumerate(shapes):
        pixels = rng.integers(0, 256, (SIZE, SIZE, *shape), dtype=np.uint8)
        if number == 5:
            pixels[..., 3] = 255
        save(tmp_path / "source" / "A" / f"{number}.png", pixels)
        save(
            tmp_path / "source" / "B" / f"{number}.png", rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        )
    workdir = train_run(val_fraction=0.25, test_fraction=0.25)
    data = restore_run(workdir).experiment.data
    description = describe(data)
    assert description.images["input"].alpha and description.images["input"].channels == 4
    assert description.images["target"].channels == 3
    compared = 0
    for split in ("train", "val", "test"):
        for batch in data.evaluation(split, batch=1):
            path = tmp_path / "source" / "A" / f"{batch['name'][0].numpy().decode()}.png"
            picture = read_picture(str(path), channels=4, trained=description.images["input"])
            x = picture.pixels.astype(np.float64) / 127.5 - 1
            np.testing.assert_allclose(x, batch["input"][0], rtol=0, atol=1e-6)
            compared += 1
    assert compared == len(shapes)


def test_what_differs_is_said_in_one_line(translate, train_run, tmp_path):
    for number in range(6):
        for side in "AB":
            values = np.uint8(255 * smooth(SIZE, SIZE, 3, seed=number))
            alpha = np.full((SIZE, SIZE, 1), 100 if number == 3 else 255, np.uint8)
            save(tmp_path / "source" / side / f"{number}.png", np.concatenate([values, alpha], axis=-1))
    workdir = train_run()
    pictures = tmp_path / "in"
    colour = np.uint8(255 * smooth(SIZE, SIZE, 3))
    save(pictures / "colour.png", colour)
    save(pictures / "grey.png", colour[..., 0])
    save(pictures / "deep.png", colour[..., 0].astype(np.uint16) * 257)
    code, told, _ = translate(workdir=workdir, input=pictures, output=tmp_path / "out")
    assert code == 0
    assert "note: 3 of 3 pictures are without transparency, made opaque\n" in told
    assert "note: 2 of 3 pictures are grey, repeated to 3 channels\n" in told
    assert "note: 1 of 3 pictures is of 16 bits where training had 8, which keep their precision\n" in told
    written = {name: load(tmp_path / "out" / f"{name}.png") for name in ("colour", "grey", "deep")}
    assert {pixels.shape for pixels in written.values()} == {(SIZE, SIZE, 4)}
    assert [pixels.dtype for pixels in written.values()] == [np.uint8, np.uint8, np.uint16]
    assert np.abs(written["deep"] / 257 - written["grey"]).max() <= 0.5 + 1e-9


def test_values_without_a_known_meaning_are_refused_and_the_rest_is_done(translate, train_run, tmp_path):
    def twelve_bits(seed):
        return np.uint16(4095 * smooth(SIZE, SIZE, 1, seed=seed))

    for number in range(6):
        for side in "AB":
            save(tmp_path / "source" / side / f"{number}.png", twelve_bits(number))
    workdir = train_run(value_range=(0, 4095))
    pictures = tmp_path / "in"
    save(pictures / "a.png", twelve_bits(7))
    save(pictures / "brighter.png", np.uint16(60000 * smooth(SIZE, SIZE, 1)))
    save(pictures / "eight.png", np.uint8(255 * smooth(SIZE, SIZE, 1)))
    save(pictures / "floats.tif", np.float32(smooth(SIZE, SIZE, 1)))
    whole = save(pictures / "cut.png", twelve_bits(8)).read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(pictures / "z.png", twelve_bits(9))

    code, told, errors = translate(workdir=workdir, input=pictures, output=tmp_path / "out")
    assert code == 2 and errors.count("\n") == 1 and "Traceback" not in errors
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "z.png"]
    assert "translated 2 pictures" in told and "refused 4 of 6 pictures:\n" in told
    refused = {line.split("/in/")[1].split(":")[0]: line for line in told.splitlines() if "/in/" in line}
    assert refused.keys() == {"brighter.png", "eight.png", "floats.tif", "cut.png"}
    for name, expected in (
        ("brighter.png", "outside the value range 0 to 4095"),
        ("eight.png", "has uint8 values, but the run was trained on uint16 of 0 to 4095"),
        ("floats.tif", "has float32 values, but the run was trained on uint16 of 0 to 4095"),
        ("cut.png", "damaged image"),
    ):
        assert expected in refused[name]
    assert "4 of 6 pictures are refused" in errors and "brighter.png" in errors


def test_floats_outside_the_range_are_said_and_not_clipped(translate, train_run, tmp_path):
    for number in range(6):
        for side in "AB":
            save(tmp_path / "source" / side / f"{number}.tif", np.float32(smooth(SIZE, SIZE, 1, seed=number)))
    workdir = train_run()  # the range is measured
    trained = describe(restore_run(workdir).experiment.data).images["input"]
    low, high = trained.value_range
    picture = np.full((SIZE, SIZE), high + 1, np.float32)
    source = save(tmp_path / "in" / "a.tif", picture)
    code, told, _ = translate(workdir=workdir, input=source, output=tmp_path / "out", raw=True)
    assert code == 0 and "note: 1 of 1 picture is with values outside" in told
    x = (picture[np.newaxis, ..., np.newaxis] - low) / (high - low) * 2 - 1
    expected = restore_run(workdir).state.networks["generator"](x)[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected, rtol=0, atol=1e-5)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.npy", "a.png", "a.tif"]
    picture[0, 0] = np.nan
    save(source, picture)
    code, _, errors = translate(workdir=workdir, input=source, output=tmp_path / "none")
    assert code == 2 and "a.tif: has values that are not finite" in errors


def noise_pairs(folder, *, channels=3):
    for number in range(6):
        for side in "AB":
            pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, channels), dtype=np.uint8)
            save(folder / side / f"{number}.png", pixels)


def test_a_run_needs_no_data_set(translate, train_run, tmp_path, capfd):
    noise_pairs(tmp_path / "source")
    workdir = train_run("BATCH_SCHEDULE = '0:2, 20ep:4'")  # epochs: their length is recorded too
    flags = {"workdir": workdir, "input": tmp_path / "source" / "A" / "0.png", "raw": True}
    assert translate(**flags, output=tmp_path / "before")[0] == 0
    shutil.move(tmp_path / "datasets", tmp_path / "moved")
    code, told, errors = translate(**flags, output=tmp_path / "after")
    assert (code, errors) == (0, "")
    before, after = ((tmp_path / when / "0.npy").read_bytes() for when in ("before", "after"))
    assert before == after
    with pytest.raises(
        ConfigurationError, match="'mine' is not in .*; .* --data_dir=DIR, or .*--input=FOLDER"
    ):
        evaluate(workdir=workdir, split="val")
    assert evaluate(workdir=workdir, split="val", data_dir=str(tmp_path / "moved")).examples == 1
    capfd.readouterr()
    folders = {"input": str(tmp_path / "source" / "A"), "target": str(tmp_path / "source" / "B")}
    evaluation = evaluate(workdir=workdir, **folders)
    assert evaluation.examples == 6 and evaluation.baselines.keys() == {"input"}
    assert (
        "without the baseline of the mean training target: data set 'mine' is not in"
        in capfd.readouterr().out
    )
    row = read_rows(RunDirectory(workdir).eval_log)[-1]
    assert row["split"] == f"{folders['input']} -> {folders['target']}"
    assert row["metric/psnr_db"] == evaluation.model["psnr_db"]

    # A run of older code has no dataset.json: its data set is read, as before.
    os.remove(os.path.join(workdir, "dataset.json"))
    code, _, errors = translate(**flags, output=tmp_path / "none")
    assert code == 2 and "data set 'mine' is not in" in errors
    shutil.move(tmp_path / "moved", tmp_path / "datasets")
    assert translate(**flags, output=tmp_path / "older")[0] == 0
    assert (tmp_path / "older" / "0.npy").read_bytes() == before

    (tmp_path / "run" / "dataset.json").write_text("{}")
    code, _, errors = translate(**flags, output=tmp_path / "none")
    assert code == 2 and "dataset.json: does not describe a data set" in errors


def test_evaluation_refuses_a_data_set_that_was_prepared_anew(train_run, tmp_path):
    noise_pairs(tmp_path / "source")
    workdir = train_run()
    shutil.rmtree(tmp_path / "source")
    noise_pairs(tmp_path / "source", channels=4)
    prepare.prepare(
        layout="paired",
        source=tmp_path / "source",
        name="mine",
        data_dir=str(tmp_path / "datasets"),
        overwrite=True,
    )
    with pytest.raises(ConfigurationError, match="'mine': has examples of shapes .*4.*trained on .*3"):
        evaluate(workdir=workdir, split="train_held_out")


@pytest.mark.parametrize("resize", ["resize", "resize_with_pad"])
def test_pictures_are_resized_as_in_evaluation_and_back(translate, train_run, tmp_path, resize):
    height, width = 60, 40
    for number in range(6):
        for side in "AB":
            values = np.uint8(255 * smooth(height, width, 3, seed=number))
            split = "train" if number < 5 else "val"
            save(tmp_path / "source" / split / side / f"{number}.png", values)
    workdir = train_run(f"pairs.PairedImages.resize = {resize!r}", size=(SIZE + 4, SIZE))
    flags = {"workdir": workdir, "input": tmp_path / "source" / "val" / "A", "raw": True}
    code, told, _ = translate(**flags, output=tmp_path / "whole")
    assert code == 0 and np.load(tmp_path / "whole" / "5.npy").shape == (height, width, 3)
    assert told.count("note: 1 of 1 picture is not of 24x24 pixels") == told.count("--resize=as_trained") == 1

    code, told, _ = translate(**flags, output=tmp_path / "resized", resize="as_trained")
    assert code == 0 and "note" not in told
    trainer = restore_run(workdir)
    [batch] = trainer.experiment.data.evaluation("val", batch=1)
    expected = trainer.state.evaluation_networks["generator"](batch["input"])[0]
    np.testing.assert_allclose(np.load(tmp_path / "resized" / "5.npy"), expected, rtol=0, atol=1e-5)
    assert load(tmp_path / "resized" / "5.png").shape == (height, width, 3)
    folders = {
        name: str(tmp_path / "source" / "val" / side) for name, side in (("input", "A"), ("target", "B"))
    }
    assert_same(evaluate(workdir=workdir, **folders), evaluate(workdir=workdir, split="val"))


def test_a_size_that_the_network_does_not_take_is_padded_or_resized(translate, train_run, tmp_path):
    noise_pairs(tmp_path / "source")
    workdir = train_run(size=(SIZE + 4, SIZE))
    picture = np.uint8(255 * smooth(33, 35, 3))
    source = save(tmp_path / "in" / "a.png", picture)
    flags = {"workdir": workdir, "input": source, "output": tmp_path / "out", "raw": True}
    assert translate(**flags)[0] == 0
    padded = np.pad(picture, [(0, 3), (0, 1), (0, 0)], mode="reflect")  # to 36 x 36
    generator = restore_run(workdir).state.evaluation_networks["generator"]
    expected = generator(padded[np.newaxis] / np.float32(127.5) - 1)[0, :33, :35]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected, rtol=0, atol=1e-5)
    assert load(tmp_path / "out" / "a.png").shape == (33, 35, 3)
    assert translate(**flags, resize="as_trained")[0] == 0
    assert load(tmp_path / "out" / "a.png").shape == (33, 35, 3)


def test_pictures_that_training_left_at_their_size_need_no_resizing(translate, train_run, tmp_path):
    noise_pairs(tmp_path / "source")
    workdir = train_run()
    source = save(tmp_path / "in" / "a.png", np.uint8(255 * smooth(32, 40, 3)))
    flags = {"workdir": workdir, "input": source, "output": tmp_path / "out"}
    code, told, _ = translate(**flags)
    assert code == 0 and "note" not in told
    code, told, _ = translate(**flags, resize="as_trained")
    assert code == 0 and "not resized, because training did not resize pictures either" in told
    assert load(tmp_path / "out" / "a.png").shape == (32, 40, 3)


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_cyclegan_translates_both_ways(translate, train_run, tmp_path, direction):
    for number in range(6):
        for domain, channels in (("trainA", 3), ("trainB", 1)):
            values = np.uint8(255 * smooth(SIZE, SIZE, channels, seed=number))
            save(tmp_path / "source" / domain / f"{number}.png", values)
    workdir = train_run(
        f"DIRECTION = {direction!r}",
        gin_file="gin/cyclegan.gin",
        layout="unpaired",
        settings=[
            "cyclegan.CycleGan.generator = 'tiny'",
            "cyclegan.CycleGan.discriminator_filters = 2",
            "cyclegan.CycleGan.identity_weight = 0",
            *TINY[3:],
        ],
    )
    networks = restore_run(workdir).state.evaluation_networks
    for wanted, domain, channels in (("AtoB", "trainA", 1), ("BtoA", "trainB", 3)):
        source = tmp_path / "source" / domain / "0.png"
        x = load(source).astype(np.float64) / 127.5 - 1
        network = "input_to_target" if wanted == direction else "target_to_input"
        expected = networks[network](x[np.newaxis])[0]
        output = tmp_path / wanted
        flags = {"workdir": workdir, "input": source, "output": output, "raw": True}
        assert translate(**flags, direction=wanted)[0] == 0
        np.testing.assert_allclose(np.load(output / "0.npy"), expected, rtol=0, atol=1e-5)
        assert load(output / "0.png").shape == (SIZE, SIZE, channels)
        if wanted == direction:
            assert translate(**flags)[0] == 0
            np.testing.assert_allclose(np.load(output / "0.npy"), expected, rtol=0, atol=1e-5)


def test_what_a_task_cannot_do_is_refused(translate, train_run, tmp_path):
    noise_pairs(tmp_path / "source")
    flags = {
        "workdir": train_run(),
        "input": tmp_path / "source" / "A" / "0.png",
        "output": tmp_path / "out",
    }
    for given, expected in (
        ({"direction": "BtoA"}, "--direction=BtoA: the run translates AtoB only"),
        ({"direction": "back"}, "--direction=back: unknown; use AtoB or BtoA"),
        ({"samples": 2}, "--samples=2: the run's networks take no code"),
        ({"code_from": flags["input"]}, "take no code"),
        ({"samples": 0}, "--samples=0: must be at least 1"),
        ({"seed": 3}, "--seed=3: goes with --samples"),
        ({"samples": 2, "code_from": "a.png"}, "exclude each other"),
        ({"resize": "half"}, "--resize=half: unknown; use one of none, as_trained"),
    ):
        code, _, errors = translate(**flags, **given)
        assert code == 2 and errors.count("\n") == 1 and expected in errors
    assert translate(**flags, direction="AtoB")[0] == 0
    for given in ({"direction": "AtoB"}, {"code_from": "a.png"}, {"resize": "as_trained"}):
        code, _, errors = translate(torch_checkpoint="a.pth", input="a.png", output="b", **given)
        assert code == 2 and "goes with --workdir" in errors


def test_bicycle_gan_makes_many_outputs(translate, train_run, tmp_path):
    for number in range(6):
        for side in "AB":
            values = np.uint8(255 * smooth(64, 64, 3, seed=number + ord(side)))
            save(tmp_path / "source" / side / f"{number}.png", values)
    workdir = train_run(
        gin_file="gin/bicycle_gan.gin",
        settings=[
            "latent_networks.LatentNetworks.generator = 'unet_32'",
            "latent_networks.LatentNetworks.encoder = 'resnet_32'",
            "latent_networks.LatentNetworks.latent_size = 3",
            "latent_networks.LatentNetworks.generator_filters = 2",
            "latent_networks.LatentNetworks.encoder_filters = 2",
            "scaled_discriminators.ScaledDiscriminators.filters = 2",
            *TINY[3:],
        ],
        size=(0, 64),
    )
    source = tmp_path / "source" / "A" / "0.png"
    style = tmp_path / "source" / "B" / "3.png"
    networks = restore_run(workdir).state.evaluation_networks

    def generated(code):
        x = (load(source) / 127.5 - 1)[np.newaxis].astype(np.float32)
        return networks["generator"]([x, np.asarray(code)], training=False)[0]

    flags = {"workdir": workdir, "input": source, "raw": True}
    assert translate(**flags, output=tmp_path / "default")[0] == 0
    assert sorted(os.listdir(tmp_path / "default")) == ["0.npy", "0.png"]
    np.testing.assert_allclose(
        np.load(tmp_path / "default" / "0.npy"), generated(np.zeros([1, 3], np.float32)), rtol=0, atol=1e-5
    )
    for seed in (0, 5):
        output = tmp_path / f"seed{seed}"
        assert translate(**flags, output=output, samples=3, seed=seed)[0] == 0
        assert sorted(os.listdir(output)) == [
            f"0_sample_{n}.{end}" for n in range(3) for end in ("npy", "png")
        ]
        for number in range(3):
            code = tf.random.stateless_normal([1, 3], seed=(seed, number))
            raw = np.load(output / f"0_sample_{number}.npy")
            np.testing.assert_allclose(raw, generated(code), rtol=0, atol=1e-5)
    targets = (load(style) / 127.5 - 1)[np.newaxis].astype(np.float32)
    mean, _ = networks["encoder"](targets, training=False)
    assert translate(**flags, output=tmp_path / "style", code_from=style)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "style" / "0.npy"), generated(mean), rtol=0, atol=1e-5)


def test_pairs_that_cannot_be_evaluated_are_refused_in_one_line(train_run, tmp_path, capfd):
    noise_pairs(tmp_path / "source")
    workdir = train_run()
    lines = len(read_rows(RunDirectory(workdir).eval_log))
    a, b = tmp_path / "in" / "A", tmp_path / "in" / "B"
    colour = np.uint8(255 * smooth(32, 40, 3))

    def run(**more):
        values = FlagValues()
        engine.evaluate.define_flags(values)
        flags = {"workdir": workdir, "input": a, "target": b} | more
        rest = values(["evaluate", *(f"--{name}={text}" for name, text in flags.items() if text is not None)])
        capfd.readouterr()
        code = program.exit_code(engine.evaluate.main, rest, values)
        told, errors = capfd.readouterr()
        assert code == 2 and errors.count("\n") == 1 and "Traceback" not in errors, errors
        return told, errors

    def refused(**more):
        return run(**more)[1]

    assert f"--input={a}: no such folder" in refused()
    for folder in (a, b):
        save(folder / "1.png", colour)
        save(folder / "2.png", colour)
    save(a / "3.png", colour)
    assert "3.png: has no partner named '3'" in refused()
    save(b / "3.png", colour[:20])
    assert "A/3.png: is 40x32, but " in (told := refused()) and "B/3.png is 40x20; give both the same" in told
    save(a / "3.png", colour[:20])
    assert "B/3.png: is 40x20, smaller than the 24x24 of CROP_SIZE" in refused()
    save(a / "3.png", np.dstack([colour, colour[..., :1]]))
    assert "A/3.png: has 4 channels with transparency, but the network takes 3" in refused()
    (a / "3.png").write_bytes((a / "2.png").read_bytes()[:100])
    assert "A/3.png: damaged image" in refused()
    # All that cannot be used are listed: damaged files, and those without a partner.
    (a / "1.png").write_bytes(b"no image")
    told, errors = run()
    listed = told.splitlines()
    assert listed[0] == "refused 2 of 3 pairs:" and len(listed) == 3
    assert "A/1.png: " in listed[1] and "A/3.png: damaged image" in listed[2]
    assert errors.startswith("2 of 3 pairs cannot be used (listed above), so nothing is evaluated; mend or")
    for number in range(25):
        save(b / f"lonely{number:02d}.png", colour)
    told, errors = run()
    assert told.startswith("refused 27 of 28 pairs:\n") and "\n  and 7 more\n" in told
    assert told.count("has no partner") == 20 and "lonely19.png" in told
    assert errors.startswith("27 of 28 pairs") and f"(the first: {b}/lonely00.png: has no partner" in errors
    for number in range(25):
        (b / f"lonely{number:02d}.png").unlink()
    for given, expected in (
        ({"split": "test"}, "--split=test, --input="),
        ({"target": None}, "needs --target too"),
        ({"side_map": a}, "the run's networks take none; leave it out"),
        ({"side_vector": "1"}, "the run's networks take none; leave it out"),
        (
            {"side_vector": "1", "input": None, "target": None},
            "--side_vector=1: goes with --input and --target",
        ),
        ({"split": "test", "input": None, "target": None, "data_dir": a}, "is not in"),
    ):
        assert expected in refused(**given)
    assert len(read_rows(RunDirectory(workdir).eval_log)) == lines
