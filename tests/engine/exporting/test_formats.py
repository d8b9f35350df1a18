"""Each format of an export gives what the run gives: for every kind of task, and without this project."""

import json
import os
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import color

from engine.distribution.precision import set_precision
from engine.export import export
from engine.exporting import exported_run
from models.networks.norms import BatchNorm
from models.pix2pix import Pix2Pix
from tests.engine.exporting.conftest import RUNS, SIZES, UNET, MadeUpData


def pictures_of(exported, role="input"):
    """The examples as 8-bit pictures: RGB, uint8."""
    images = exported.examples[role]
    if exported.trainer.experiment.data.colour_space == "lab":
        images = rgb_of((images.astype(np.float64) + [1, 0, 0]) * [50, 110, 110])
    images = np.nan_to_num(images)
    return np.uint8(np.clip(np.floor((images + 1) * 127.5 + 0.5), 0, 255))


def signed(pictures):
    return np.float32(pictures / 127.5 - 1)


def translated(name, exported):
    """Features for an export, and what the run's own networks make of them, float [B, H, W, C]."""
    networks = exported.networks
    x = signed(pictures_of(exported, "target" if name == "back" else "input"))
    features = {"image": x}
    if name in ("batch statistics", "super-resolution"):
        return features, np.clip(networks["generator"](x, training=False), -1, 1)
    if name == "moving statistics":
        norms = [layer for layer in networks["generator"].layers if isinstance(layer, BatchNorm)]
        assert len(norms) == 7
        for layer in norms:
            layer.inference_norm = "moving_statistics"
        return features, networks["generator"](x, training=False).numpy()
    if name in ("there", "back"):
        network = {"there": "input_to_target", "back": "target_to_input"}[name]
        return features, networks[network](x, training=False).numpy()
    if name == "colourisation":
        lightness = np.float32(color.rgb2lab(pictures_of(exported))[..., :1] / 50 - 1)
        colours = networks["generator"](lightness, training=False).numpy().astype(np.float64)
        lab = np.concatenate([(lightness + 1) * 50, colours * 110], axis=-1)
        return features, rgb_of(lab)
    if name == "code":
        features["latent_code"] = np.random.default_rng(0).normal(size=(len(x), 3)).astype(np.float32)
        return features, networks["generator"]([x, features["latent_code"]], training=False).numpy()
    assert name == "side"
    features |= {key: exported.examples[key] for key in ("side_vector", "side_map")}
    given = [x, features["side_vector"], features["side_map"]]
    return features, networks["generator"](given, training=False).numpy()


def rgb_of(lab):
    """[-1, 1], by scikit-image; NaN where it clips what is no colour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rgb = color.lab2rgb(lab) * 2 - 1
    is_colour = (lab[..., 0] + 16) / 116 - lab[..., 2] / 200 >= 0
    return np.where(is_colour[..., np.newaxis], rgb, np.nan)


def assert_close(found, expected, tolerance):
    known = ~np.isnan(expected)
    assert found.shape == expected.shape and known.mean() > 0.5 and np.ptp(expected[known]) > 0.1
    np.testing.assert_allclose(
        np.clip(found, -1, 1)[known], np.clip(expected, -1, 1)[known], rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_model_and_tflite_give_what_the_run_gives(export_run, name):
    exported = export_run(name)
    features, expected = translated(name, exported)
    tolerance = 1e-3 if name == "colourisation" else 1e-4
    assert exported.files.keys() & {("saved_model", "float32"), ("tflite", "float32")}
    if ("saved_model", "float32") in exported.files:
        signature = tf.saved_model.load(f"{exported.path}/saved_model/1").signatures["serving_default"]
        found = signature(**{key: tf.constant(value) for key, value in features.items()})["output"]
        assert_close(found.numpy(), expected, tolerance)
    if ("tflite", "float32") in exported.files:
        found = through_tflite(f"{exported.path}/model_float32.tflite", features)
        assert_close(found, expected, tolerance)


def through_tflite(path, features):
    with pytest.warns(UserWarning, match="tf.lite.Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(path)
    return interpreter.get_signature_runner("serving_default")(**features)["output"]


def test_smaller_weights_of_tflite_give_nearly_that(export_run):
    exported = export_run("batch statistics")
    features, expected = translated("batch statistics", exported)
    size = {}
    for dtype, least_psnr_db in (("float32", 100), ("float16", 50), ("int8", 20)):
        path = f"{exported.path}/model_{dtype}.tflite"
        size[dtype] = os.path.getsize(path)
        found = through_tflite(path, features)
        psnr_db = 10 * np.log10(4 / np.mean((found - expected) ** 2))
        assert psnr_db > least_psnr_db
        assert exported.files["tflite", dtype].found.psnr_db == pytest.approx(psnr_db, abs=6)
    assert size["float16"] < 0.7 * size["float32"] and size["int8"] < 0.7 * size["float16"]


def test_outside_of_this_project(export_run, run_outside):
    jobs, expected = [], []
    for name in ("moving statistics", "side"):
        exported = export_run(name)
        features, wanted = translated(name, exported)
        networks = {key: features[key] for key in ("image", "side_vector", "side_map") if key in features}
        jobs += [(f"{exported.path}/saved_model/1", features), (f"{exported.path}/generator.keras", networks)]
        expected += [wanted, wanted]
    for found, wanted in zip(run_outside(jobs), expected, strict=True):
        assert_close(found, wanted, 1e-4)


@pytest.mark.parametrize("name", ("moving statistics", "there", "back", "super-resolution", "colourisation"))
def test_engine_translate_takes_an_export(export_run, translate, tmp_path, name):
    """It makes what the run's networks make, with nothing but the folder of the export."""
    exported = export_run(name)
    _, expected = translated(name, exported)
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(pictures_of(exported, "target" if name == "back" else "input")):
        Image.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
    for part in sorted({"saved_model", "generator.keras"} & set(os.listdir(exported.path))):
        made = tmp_path / part
        code, _, errors = translate(
            model=f"{exported.path}/{part}", input=tmp_path / "in", output=made, raw=True
        )
        assert (code, errors) == (0, "")
        found = np.stack([np.load(made / f"{number}.npy") for number in range(len(expected))])
        assert_close(found, expected, 1e-3 if name == "colourisation" else 1e-4)


@pytest.mark.parametrize("name", ("batch statistics", "moving statistics"))
def test_batch_norm_is_folded_only_where_its_statistics_are_fixed(export_run, name):
    exported = export_run(name)
    facts = json.loads(open(f"{exported.path}/gantry.json").read())
    assert facts["folded_batch_norms"] == (7 if name == "moving statistics" else 0)
    assert f"with {name.replace(' ', '_')}" in facts["mode"]


def test_a_run_in_bfloat16_on_two_replicas_is_exported_in_float32(make_run, tmp_path, monkeypatch, capsys):
    task = Pix2Pix(**UNET)
    trainer = make_run(task, MadeUpData(), strategy="mirrored", cpu_replicas=2, precision="bfloat16")
    assert trainer.devices.replicas == 2
    monkeypatch.setattr(exported_run, "restore_run", lambda *_, **__: trainer)
    monkeypatch.setattr(exported_run, "find_sizes", lambda *_: SIZES["moving statistics"])
    [file] = export(workdir="run", output=str(tmp_path / "out"), formats=["keras"], examples=2)
    assert 0.001 < file.found.largest_levels < 50
    assert "note: the run computes in bfloat16 and its exports do not" in capsys.readouterr().out
    set_precision("float32")
    network = task.build_generator(MadeUpData().example_spec)
    network.set_weights(trainer.state.networks["generator"].get_weights())
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 64, 3)).astype(np.float32)
    loaded = keras.saving.load_model(tmp_path / "out" / "generator.keras", compile=False)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    np.testing.assert_allclose(loaded(x), network(x, training=False), rtol=0, atol=1e-5)
