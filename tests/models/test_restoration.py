"""Supervised translation, super-resolution, denoising and codec restoration: gin files and learning."""

import io

import numpy as np
import pytest
from PIL import Image

from data.prepare import prepare
from engine.evaluation.baselines import BASELINES
from engine.gin_config import loader
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from engine.translate import translate
from models.networks import generators

SIZE = 32


def blocks(seed):
    """An image to restore, of sharp rectangles in many colours with even corners: [SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    picture = np.full((SIZE, SIZE, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        (top, left), (height, width) = 2 * rng.integers(0, SIZE // 2 - 3, 2), 2 * rng.integers(2, 8, 2)
        picture[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return Image.fromarray(picture)


def compressed(picture, quality):
    """Encodes an image as JPEG and decodes it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    return Image.open(file)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Prepares "single" (sharp images), "pairs" (smooth, after and before JPEG), "shades" (other levels)."""
    root = tmp_path_factory.mktemp("made_up")
    changes = {
        "pairs": lambda image: compressed(image, 12),
        "shades": lambda image: image.point(lambda level: 255 - level // 2),
    }
    smooth = {"pairs": lambda image: image.resize((5, 5)).resize(image.size, Image.Resampling.BICUBIC)}
    for split, first, count in (("train", 0, 24), ("val", 100, 6)):
        for index in range(first, first + count):
            original = blocks(index)
            folders = [(f"single/{split}", original)]
            for name, change in changes.items():
                clean = smooth.get(name, lambda image: image)(original)
                folders += [(f"{name}/{split}/A", change(clean)), (f"{name}/{split}/B", clean)]
            for folder, image in folders:
                (root / folder).mkdir(parents=True, exist_ok=True)
                image.save(root / folder / f"{index}.png")
    for name, layout in (("single", "single"), ("pairs", "paired"), ("shades", "paired")):
        prepare(layout=layout, source=str(root / name), name=name, data_dir=str(root / "sets"))
    return str(root / "sets")


@pytest.fixture
def trainer_of(data_dir, tmp_path, monkeypatch):
    """A small and fast trainer of a gin file, before its run."""
    monkeypatch.setitem(generators.GENERATORS, "edsr_8blocks", generators._edsr(1))

    def make(name, dataset, *params):
        params = (
            f"DATASET = {dataset!r}",
            f"DATA_DIR = {data_dir!r}",
            "LOAD_SIZE = 0",
            "CROP_SIZE = 32",
            "BATCH_SCHEDULE = 4",
            "LEARNING_RATE = 3e-3",
            "STRATEGY = 'one_device'",
            "LOG_EVERY = 0",
            *params,
        )
        experiment, text = loader.load_experiment(gin_files=[f"gin/{name}.gin"], gin_params=params)
        run = RunDirectory(str(tmp_path / name))
        run.create()
        run.write_config(text)
        return Trainer(experiment, run)

    return make


@pytest.mark.parametrize(
    ("name", "dataset", "gain_db", "params"),
    [
        (
            "supervised",
            "shades",
            4.0,
            [
                "supervised.Supervised.generator = 'edsr_8blocks'",
                "supervised.Supervised.generator_filters = 8",
            ],
        ),
        (
            "super_resolution",
            "single",
            3.0,
            [
                "super_resolution.SuperResolution.blocks = 1",
                "super_resolution.SuperResolution.generator_filters = 8",
                "super_resolution.SuperResolution.discriminator_filters = 4",
                "single.SingleImages.downscale = 2",
                "LEARNING_RATE = 1e-2",
            ],
        ),
        (
            "denoising",
            "single",
            1.0,
            [
                "pix2pix.Pix2Pix.generator_filters = 8",
                "pix2pix.Pix2Pix.discriminator_filters = 4",
                "degradation.Noise.sigma = (0.1, 0.1)",
            ],
        ),
        (
            "codec",
            "pairs",
            0.7,
            ["pix2pix.Pix2Pix.generator_filters = 8", "pix2pix.Pix2Pix.discriminator_filters = 4"],
        ),
    ],
)
def test_it_learns(trainer_of, name, dataset, gain_db, params):
    trainer = trainer_of(name, dataset, "TOTAL_EXAMPLES = 160", *params)
    untrained = trainer.evaluator.evaluate("val", baselines=BASELINES)
    trainer.run()
    trained = trainer.evaluator.evaluate("val").model["psnr_db"]
    of_input = untrained.baselines["input"]["psnr_db"]
    assert trained > max(of_input, untrained.model["psnr_db"]) + gain_db
    if name == "super_resolution":
        # Before training, the network returns the baseline, a bicubic enlargement.
        assert untrained.model["psnr_db"] == pytest.approx(of_input, abs=0.01)
        check_sizes(trainer)


@pytest.mark.parametrize(
    "names",
    [
        ("denoising", "degradations_light"),
        ("super_resolution", "degradations_strong"),
        ("supervised", "degradations_strong"),
    ],
    ids=lambda names: names[0],
)
def test_degradations_strengthen_from_none(data_dir, names):
    """The presets of domain randomisation: the first input is its target; evaluation is at full strength."""
    params = ["DATASET = 'single'", f"DATA_DIR = {data_dir!r}", "LOAD_SIZE = 0", "CROP_SIZE = 32"]
    params += ["single.SingleImages.downscale = 1", "TOTAL_EXAMPLES = 96"]
    files = [f"gin/{name}.gin" for name in names]
    experiment, _ = loader.load_experiment(gin_files=files, gin_params=params)
    data = experiment.with_data_lengths().data
    [degradations] = data.augmentations
    assert degradations.ramp_examples == {"degradations_light": 24, "degradations_strong": 48}[names[-1]]

    def errors(batch):
        return np.abs(batch["input"] - batch["target"]).mean(axis=(1, 2, 3))

    batch = next(iter(data.batches(position_examples=0, global_batch=24)))
    assert errors(batch)[0] == 0 and errors(batch)[1:].max() > 0
    late = next(iter(data.batches(position_examples=72, global_batch=24)))
    assert errors(late).mean() > 2 * errors(batch)[:12].mean()
    first, again = (next(iter(data.evaluation("val", batch=6))) for _ in range(2))
    np.testing.assert_array_equal(first["input"], again["input"])
    assert errors(first).min() > 0


def check_sizes(trainer):
    """The grid enlarges inputs to the size of targets; translated images have twice the size."""
    run = trainer.run_directory
    grid = np.asarray(Image.open(f"{run.samples}/samples_00000160.png"))
    assert grid.shape == (4 * SIZE, 3 * SIZE, 3)
    np.testing.assert_array_equal(grid[::2, :SIZE:2], grid[1::2, 1:SIZE:2])  # pixels of the input, repeated
    small = blocks(200).crop((0, 0, 12, 10))
    small.save(f"{run.path}/small.png")
    (written,) = translate(workdir=run.path, input=f"{run.path}/small.png", output=f"{run.path}/out")
    large = np.asarray(Image.open(written).resize((12, 10), Image.Resampling.BOX), np.float64)
    assert Image.open(written).size == (24, 20)
    assert np.abs(large - np.asarray(small)).mean() < 12
