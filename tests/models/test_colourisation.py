"""Colourisation: channels, replicas, what it learns, and a run from stored files to translated images."""

import os

import numpy as np
import pytest
import skimage.color
import tensorflow as tf
from PIL import Image

from data import imaging
from data.prepare import prepare
from engine.errors import ConfigurationError
from engine.evaluate import evaluate
from engine.gin_config import loader
from engine.inference.restored_run import restore_run
from engine.preview import preview
from engine.schedules import LinearDecay
from engine.task import Adam
from engine.train import train as train_run
from engine.translate import translate
from models.colourisation import Colourisation
from tests.helpers.micro_batches import assert_same, plans_of, train
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

FLOAT64 = {"total_examples": 1, "precision": "float64"}
SIZE = 64


class SmallColourisation(Colourisation, SmallPix2Pix):
    """Colourisation over networks of two layers."""


class Painted(NoisePairs):
    """Images whose lightness determines their colours: dark ones are blue, light ones orange."""

    def example(self, index):
        share = (super().example(index)["input"][..., :1] + 1) / 2  # [H, W, 1]
        rgb = (1 - share) * [0.05, 0.1, 0.5] + share * [1.0, 0.75, 0.3]
        lab = imaging.rgb_to_space(2 * rgb - 1, "lab")
        return {"input": lab, "target": lab, "id": index}


def test_channels():
    spec = tf.TensorSpec([64, 64, 3], tf.float32)
    networks = Colourisation(generator="unet_64", generator_filters=2, discriminator_filters=2).networks(
        {"input": spec, "target": spec}
    )
    assert networks["generator"].input_shape[-1] == 1 and networks["generator"].output_shape[-1] == 2
    assert networks["discriminator"].input_shape[-1] == 3


def test_losses_are_of_lightness_and_colours(make_trainer):
    """One step with NumPy: L1 of the colours only, which ignores the colours of the input."""

    class OtherInput(Painted):
        def example(self, index):
            example = super().example(index)
            return example | {"input": example["input"] * [1.0, -0.5, 3.0]}

    data = OtherInput(size=16, colour_space="lab")
    task = SmallColourisation(norm="instance", dropout=False, l1_weight=10.0)
    trainer = make_trainer(task, data, **FLOAT64)
    batch = next(iter(data.batches(position_examples=0, global_batch=3)))
    lab = batch["target"].numpy().astype(np.float64)
    made = trainer.state.networks["generator"](lab[..., :1], training=True).numpy()
    losses, _ = train(trainer, plans_of(3, None, 1, 1))
    names = [name for name in trainer.loop._metric_names[0] if name.startswith("loss/")]
    expected = 10 * np.abs(made - lab[..., 1:]).mean()
    np.testing.assert_allclose(losses[0, names.index("loss/generator/l1")], expected, rtol=1e-9)
    batch = {"input": tf.cast(batch["input"], tf.float64)}
    translated = task.translate(trainer.state.networks, batch)
    np.testing.assert_array_equal(translated[..., :1], batch["input"][..., :1])
    shown = task.input_picture(batch).numpy()
    np.testing.assert_array_equal(shown, lab * [1, 0, 0])


def test_replicas_change_nothing(make_trainer):
    fast = Adam(learning_rate=1e-2)
    task = SmallColourisation(norm="instance", dropout=False, discriminator_optimizer=fast)
    data = Painted(size=16, colour_space="lab")
    whole = train(make_trainer(task, data, **FLOAT64), plans_of(5, None, 1, 6))
    assert np.ptp(whole[0][:, 0]) > 0.01  # it does train
    trainer = make_trainer(task, data, cpu_replicas=2, **FLOAT64)
    assert_same(train(trainer, plans_of(5, None, 2, 6)), whole)


def test_it_learns_colours(make_trainer):
    fast = Adam(learning_rate=5e-3)
    task = SmallColourisation(
        norm="instance", dropout=False, generator_optimizer=fast, discriminator_optimizer=fast
    )
    data = Painted(size=16, colour_space="lab")
    trainer = make_trainer(task, data, total_examples=1)

    def error():
        [batch] = data.evaluation("test", batch=5)
        made = task.translate(trainer.state.networks, batch)
        return np.abs(made - batch["target"])[..., 1:].mean(), np.abs(batch["target"])[..., 1:].mean()

    before, grey = error()
    train(trainer, plans_of(4, None, 1, 100))
    after, _ = error()
    assert before > 0.9 * grey and after < 0.4 * grey


def test_rgb_is_refused():
    with pytest.raises(
        ConfigurationError, match="colour_space = 'rgb': Colourisation does not learn from it; "
    ):
        loader.load_experiment(
            gin_files=["gin/colourisation.gin"],
            gin_params=["single.SingleImages.colour_space = 'rgb'"],
        )


def test_gin_file_has_the_reference_s_settings():
    experiment, _ = loader.load_experiment(gin_files=["gin/colourisation.gin"])
    task, data = experiment.task, experiment.data
    assert (task.generator, task.norm, task.dropout, task.gan_loss) == ("unet_256", "batch", True, "bce")
    assert (task.l1_weight, data.colour_space, list(data.augmentations)) == (100, "lab", [])
    for optimizer in task.optimizers.values():
        assert (optimizer.learning_rate, optimizer.beta1) == (2e-4, 0.5)
        assert optimizer.schedule == LinearDecay(constant="50%", decay="50%")


def painted(seed):
    """An image of many colours, some of them strong: uint8 [SIZE, SIZE, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


PICTURES = {"train": range(4), "val": range(4, 6), "test": range(6, 9)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of gin/colourisation.gin on stored images: (its folder, its gin parameters)."""
    folder = tmp_path_factory.mktemp("colourisation")
    for split, seeds in PICTURES.items():
        os.makedirs(folder / "pictures" / split)
        for seed in seeds:
            Image.fromarray(painted(seed)).save(folder / "pictures" / split / f"{seed}.png")
    prepare(
        layout="single", source=str(folder / "pictures"), name="painted", data_dir=str(folder / "datasets")
    )
    settings = [
        'DATASET = "painted"',
        f"DATA_DIR = {str(folder / 'datasets')!r}",
        "LOAD_SIZE = 0",
        f"CROP_SIZE = {SIZE}",
        'colourisation.Colourisation.generator = "unet_64"',
        "colourisation.Colourisation.generator_filters = 2",
        "colourisation.Colourisation.discriminator_filters = 2",
        "LEARNING_RATE = 0.01",
        "TOTAL_EXAMPLES = 8",
        "BATCH_SCHEDULE = 4",
    ]
    train_run(gin_files=["gin/colourisation.gin"], gin_params=settings, workdir=str(folder / "run"))
    return folder, settings


@pytest.fixture(scope="module")
def colourised(run):
    """Function: uint8 RGB -> the run's uint8 output and the network's colours, with scikit-image."""
    networks = restore_run(str(run[0] / "run")).state.networks

    def colour(rgb):
        lightness = skimage.color.rgb2lab(rgb)[..., :1]
        x = (lightness / 50 - 1).astype(np.float32)
        ab = networks["generator"](x[np.newaxis], training=False).numpy()[0].astype(np.float64) * 110
        return rounded(np.concatenate([lightness, ab], -1)), ab

    return colour


def rounded(lab):
    """L*a*b* -> uint8 RGB."""
    return np.floor(np.clip(skimage.color.lab2rgb(lab), 0, 1) * 255 + 0.5).astype(np.uint8)


def psnr_db(pictures, references):
    pairs = zip(pictures, references, strict=True)
    return np.mean([10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in pairs])


def test_metrics_are_of_rgb(run, colourised):
    measured = evaluate(workdir=str(run[0] / "run"), split="test")
    originals = [painted(seed) for seed in PICTURES["test"]]
    made = [colourised(rgb)[0] for rgb in originals]
    assert psnr_db(made, originals) < 40  # the outputs are not simply the originals
    np.testing.assert_allclose(measured.model["psnr_db"], psnr_db(made, originals), atol=0.01)
    greys = [rounded(skimage.color.rgb2lab(rgb) * [1, 0, 0]) for rgb in originals]
    np.testing.assert_allclose(measured.baselines["input"]["psnr_db"], psnr_db(greys, originals), atol=0.01)
    training = np.stack([painted(seed) for seed in PICTURES["train"]])
    mean = np.round(training.mean(0)).astype(np.uint8)
    constant = psnr_db([mean] * len(originals), originals)
    np.testing.assert_allclose(measured.baselines["mean target"]["psnr_db"], constant, atol=1e-6)


def test_sample_grids_and_contact_sheets_are_rgb(run, colourised, tmp_path):
    folder, settings = run
    [name] = os.listdir(folder / "run" / "samples")
    grid = np.asarray(Image.open(folder / "run" / "samples" / name))
    assert grid.shape == (2 * SIZE, 3 * SIZE, 3)
    for row, seed in enumerate(PICTURES["val"]):
        rgb = painted(seed)
        grey, made, target = np.split(grid[row * SIZE : (row + 1) * SIZE], 3, axis=1)
        assert np.abs(grey - rounded(skimage.color.rgb2lab(rgb) * [1, 0, 0]).astype(int)).max() <= 1
        assert np.abs(made - colourised(rgb)[0].astype(int)).max() <= 1
        np.testing.assert_array_equal(target, rgb)
    path = str(tmp_path / "sheet.png")
    preview(
        gin_files=["gin/colourisation.gin"],
        gin_params=[*settings, "single.SingleImages.flip = False"],
        output=path,
        examples=1,
    )
    grey, target = np.split(np.asarray(Image.open(path)), 2, axis=1)
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    assert any(np.array_equal(target, painted(seed)) for seed in PICTURES["train"])


def test_translates_grey_and_coloured_pictures(run, colourised, tmp_path):
    """Of another size than in training; an output can be an input."""
    wide = np.concatenate([painted(20), painted(21)], axis=1)
    pictures = {"colour": wide, "grey": wide[..., 1]}
    os.makedirs(tmp_path / "in")
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    translate(workdir=str(run[0] / "run"), input=str(tmp_path / "in"), output=str(tmp_path / "out"), raw=True)
    for name, pixels in pictures.items():
        rgb = pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, -1)
        expected, ab = colourised(rgb)
        shown = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        assert np.abs(shown - expected.astype(int)).max() <= 1
        assert np.ptp(shown.astype(int), axis=-1).max() > 5  # it has colours
        raw = np.load(tmp_path / "out" / f"{name}.npy")
        np.testing.assert_allclose(raw[..., 1:] * 110, ab, rtol=0, atol=0.05)
        np.testing.assert_allclose(
            (raw[..., 0] + 1) * 50, skimage.color.rgb2lab(rgb)[..., 0], rtol=0, atol=1e-3
        )
