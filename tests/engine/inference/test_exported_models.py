"""engine.translate with what engine.export wrote: its folder, a SavedModel or a .keras file."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from models.networks.layers import Conv, image_input


def network():
    """Its outputs depend on neighbours."""
    keras.utils.set_random_seed(0)
    image = image_input(3)
    kernel = {"kernel_initializer": keras.initializers.RandomNormal(0.0, 0.3)}
    x = keras.layers.ReLU()(Conv(4, 3, padding=1, **kernel)(image))
    x = Conv(3, 3, padding=1, **kernel)(x)
    return keras.Model(image, keras.layers.Activation("tanh")(x), name="generator")


def facts(**more):
    """gantry.json of a run from 8-bit RGB to 12-bit RGB in 16 bits, whose network wants multiples of 4."""

    def role(dtype, high):
        stored = {"dtype": dtype, "value_range": [0, high], "channels": 3, "alpha": False}
        return {"dtype": "float32", "shape": [None, None, None, 3], "stored_as": stored}

    return {
        "inputs": {"image": role("uint8", 255)},
        "outputs": {"output": role("uint16", 4095)},
        "sizes": {
            "trained_height_width": [24, 24],
            "multiple": 4,
            "smallest": 8,
            "output_by_input": 1.0,
        },
        "network_colour_space": "rgb",
        "mode": "raw weights; no batch norm; dropout off",
        "run": {"position_examples": 7},
    } | more


class Saved(tf.Module):
    """A SavedModel with the signature of an export."""

    def __init__(self, model, *, names=("image", "output")):
        super().__init__()
        self.kept = [variable.value for variable in model.variables]
        name, result = names
        spec = tf.TensorSpec([None, None, None, 3], tf.float32, name)
        function = tf.function(lambda **x: {result: model(x[name])}, autograph=False)
        self.signature = function.get_concrete_function(**{name: spec})


def save(model, path, **settings):
    module = Saved(model, **settings)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.signature})


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The folder of an export with both formats, and its network."""
    folder, model = tmp_path_factory.mktemp("export"), network()
    save(model, folder / "saved_model" / "1")
    model.save(folder / "generator.keras")
    (folder / "gantry.json").write_text(json.dumps(facts()))
    return folder, model


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 30, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    return pixels


@pytest.mark.parametrize("part", ["", "saved_model", "saved_model/1", "generator.keras"])
def test_an_export_translates_as_its_network_does(translate, export, picture, tmp_path, part):
    folder, model = export
    flags = {"model": folder / part, "input": tmp_path / "in"}
    code, told, errors = translate(**flags, output=tmp_path / "out", raw=True)
    assert (code, errors) == (0, "") and "exported at 7 examples, raw weights; no batch norm" in told
    padded = np.pad(picture, [(0, 1), (0, 2), (0, 0)], mode="reflect")
    expected = model(padded[np.newaxis] / np.float32(127.5) - 1)[0, :23, :30]
    made = np.load(tmp_path / "out" / "a.npy")
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
    written = tf.io.decode_png((tmp_path / "out" / "a.png").read_bytes(), dtype=tf.uint16).numpy()
    assert np.abs(written - (made + 1) / 2 * 4095).max() < 0.51
    code, told, errors = translate(**flags, output=tmp_path / "tiles", raw=True, tile=16)
    assert (code, errors) == (0, "") and "in tiles of 16 pixels" in told
    np.testing.assert_allclose(np.load(tmp_path / "tiles" / "a.npy"), made, rtol=0, atol=1e-5)


def test_the_colour_space_of_a_keras_file_is_that_of_its_training(translate, picture, tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Rescaling([1.0, 0.0, 0.0])(image))  # keeps the luma
    (tmp_path / "e").mkdir()
    model.save(tmp_path / "e" / "generator.keras")
    (tmp_path / "e" / "gantry.json").write_text(json.dumps(facts(network_colour_space="ycbcr_bt601_full")))
    code, _, errors = translate(
        model=tmp_path / "e", input=tmp_path / "in", output=tmp_path / "out", raw=True
    )
    assert (code, errors) == (0, "")
    luma = picture @ [0.299, 0.587, 0.114] / 127.5 - 1
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "a.npy"), luma[..., np.newaxis].repeat(3, -1), atol=1e-4
    )


def test_models_of_other_programs_take_a_picture_from_minus_1_to_1(translate, picture, tmp_path):
    model = network()
    save(model, tmp_path / "other", names=("x", "y"))
    code, told, errors = translate(
        model=tmp_path / "other", input=tmp_path / "in", output=tmp_path / "out", raw=True
    )
    assert (code, errors) == (0, "")
    expected = model(picture[np.newaxis] / np.float32(127.5) - 1)[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected, rtol=0, atol=1e-5)
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).dtype == np.uint8


def test_what_is_no_export_is_refused_in_one_line(translate, export, picture, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.keras").write_bytes(b"no model")
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "saved_model.pb").write_bytes(b"no model")
    (tmp_path / "facts").mkdir()
    network().save(tmp_path / "facts" / "generator.keras")
    (tmp_path / "facts" / "gantry.json").write_text("{}")
    export_folder = export[0]
    for flags, expected in (
        ({"model": tmp_path / "gone"}, "holds no SavedModel and no .keras file"),
        ({"model": tmp_path / "empty"}, "holds no SavedModel and no .keras file"),
        ({"model": tmp_path / "a.keras"}, "a.keras: cannot be loaded"),
        ({"model": tmp_path / "graph"}, "graph: cannot be loaded"),
        ({"model": tmp_path / "facts"}, "gantry.json: does not describe an export"),
        ({"workdir": tmp_path}, "need exactly one"),
        ({"direction": "BtoA"}, "--direction=BtoA: goes with --workdir"),
        ({"norm_mode": "moving_statistics"}, "goes with --workdir or --torch_checkpoint"),
        ({"weights": "raw"}, "--weights=raw: goes with --workdir"),
        ({"checkpoint": "best"}, "--checkpoint=best: goes with --workdir"),
        ({"network": "unet_256"}, "--network=unet_256: goes with --torch_checkpoint"),
        ({"samples": 2}, "--samples=2: the run's networks take no code"),
        ({"side_vector": "1"}, "--side_vector=1: the run's networks take none"),
        ({"side_map": tmp_path}, "--side_map="),
    ):
        given = {"model": export_folder, "input": tmp_path / "in", "output": tmp_path / "out"} | flags
        code, _, errors = translate(**given)
        assert code == 2 and errors.count("\n") == 1 and expected in errors, errors
    assert not os.path.exists(tmp_path / "out")
