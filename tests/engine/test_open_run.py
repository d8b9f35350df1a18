"""engine.open_run gives in memory what engine.translate writes."""

import os

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigurationError
from engine.inference.restored_run import restore_run
from engine.open_run import open_run
from engine.train import train


@pytest.fixture(scope="module")
def workdir(synthetic_datasets, tmp_path_factory):
    """A run that keeps averages beside its raw weights."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    train(
        gin_files=["gin/quickstart.gin"],
        gin_params=[
            f"DATA_DIR = {synthetic_datasets!r}",
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "pix2pix.Pix2Pix.ema_decay = 0.5",
            "LEARNING_RATE = 0.05",  # so that the averages differ from the raw weights
            "TOTAL_EXAMPLES = 4",
            "BATCH_SCHEDULE = 1",
            "SAVE_EVERY = 2",
            "SAMPLE_EVERY = 0",
        ],
        workdir=str(path),
    )
    return path


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_three_lines_give_what_the_program_writes(translate, workdir, tmp_path):
    pixels = noise(50, 130, 3)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code, told, errors = translate(workdir=workdir, input=tmp_path / "photo.png", output=tmp_path / "out")
    assert (code, errors) == (0, "")
    written = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    run = open_run(workdir)
    assert f"{workdir} at 4 examples, averaged weights; batch norm with batch_statistics" in repr(run)
    for picture in (tmp_path / "photo.png", pixels, Image.fromarray(pixels)):
        result = run.translate(picture)
        assert (result.dtype, result.shape) == (np.uint8, (50, 130, 3))
        np.testing.assert_array_equal(result, written)
    assert written.std() > 1  # the network says something


@pytest.mark.parametrize("checkpoint, norm_mode", [("best", None), (2, "moving_statistics")])
def test_the_weights_that_are_asked_for(workdir, checkpoint, norm_mode):
    state = restore_run(str(workdir), checkpoint=str(checkpoint)).state
    pixels = noise(2, 64, 64, 3)
    outputs = {}
    for weights, networks in (("raw", state.networks), ("averaged", state.averaged)):
        for layer in networks["generator"].layers:
            if hasattr(layer, "inference_norm"):
                layer.inference_norm = norm_mode or "batch_statistics"
        expected = networks["generator"](pixels.astype(np.float32) / 127.5 - 1, training=False)
        run = open_run(str(workdir), checkpoint=checkpoint, weights=weights, norm_mode=norm_mode)
        outputs[weights] = run.translate(pixels, dtype="float32")
        np.testing.assert_allclose(outputs[weights], expected, rtol=0, atol=1e-5)
    assert np.abs(outputs["raw"] - outputs["averaged"]).max() > 1e-3
    usual = open_run(workdir, checkpoint=checkpoint, norm_mode=norm_mode).translate(pixels, dtype="float32")
    np.testing.assert_array_equal(usual, outputs["averaged"])


def test_what_cannot_be_opened(workdir, tmp_path):
    for settings, expected in (
        ({"workdir": tmp_path}, "holds no run"),
        ({"workdir": ""}, "no --workdir given"),
        ({"checkpoint": 3}, "--checkpoint=3: there is no such checkpoint"),
        ({"weights": "mean"}, "--weights=mean: unknown; use one of averaged, raw"),
        ({"norm_mode": "batch"}, "--norm_mode=batch: unknown"),
        ({"direction": "BtoA"}, "the run translates AtoB only"),
        ({"side_vector": "1"}, "--side_vector=1: the run's networks take none"),
    ):
        with pytest.raises(ConfigurationError) as error:
            open_run(**{"workdir": workdir} | settings)
        assert expected in str(error.value) and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []
