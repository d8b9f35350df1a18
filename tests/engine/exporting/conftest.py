"""Runs of small networks with random weights, and their exports, which the tests of this folder share."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from engine.experiment import Experiment
from engine.export import export
from engine.exporting import exported_run
from engine.exporting.picture_sizes import PictureSizes
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models.bicycle_gan import BicycleGan
from models.colourisation import Colourisation
from models.cyclegan import CycleGan
from models.latent_networks import LatentNetworks
from models.pix2pix import Pix2Pix
from models.scaled_discriminators import ScaledDiscriminators
from models.side_information import SideInformation
from models.super_resolution import SuperResolution
from tests.helpers.small_training import NoisePairs

UNET = {"generator": "unet_32", "generator_filters": 4, "discriminator_filters": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeUpData(NoisePairs):
    """Random features of these shapes."""

    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {"input": (64, 64, 3), "target": (64, 64, 3)}
    )

    @property
    def example_spec(self):
        return {name: tf.TensorSpec(shape, tf.float32) for name, shape in self.shapes.items()}

    def example(self, index):
        seeds = {name: tf.stack([tf.cast(index, tf.int32), n]) for n, name in enumerate(self.shapes)}
        return {name: self.feature(self.shapes[name], seed) for name, seed in seeds.items()}

    def feature(self, shape, seed):
        if len(shape) == 1:
            return tf.random.stateless_uniform(shape, seed)
        coarse = tf.random.stateless_uniform([6, 6, shape[-1]], seed, -1.0, 1.0)
        return tf.image.resize(coarse, shape[:2])


def side_shapes():
    return {"input": (32, 64, 3), "target": (32, 64, 3), "side_vector": (3,), "side_map": (32, 64, 2)}


SAVED_MODEL, KERAS, TFLITE = "saved_model", "keras", "tflite"
RUNS = {  # name -> task, data, flags of the export
    "batch statistics": (
        lambda: Pix2Pix(**UNET),
        MadeUpData(),
        {"formats": (TFLITE,), "dtypes": ("float32", "float16", "int8")},
    ),
    "moving statistics": (
        lambda: Pix2Pix(**UNET),
        MadeUpData(),
        {"formats": (SAVED_MODEL, KERAS), "fast": True, "norm_mode": "moving_statistics"},
    ),
    "there": (
        lambda: CycleGan(generator="resnet_6blocks", generator_filters=2, discriminator_filters=2),
        MadeUpData(is_paired=False),
        {"formats": (SAVED_MODEL,)},
    ),
    "back": (
        lambda: CycleGan(generator="resnet_6blocks", generator_filters=2, discriminator_filters=2),
        MadeUpData(is_paired=False),
        {"formats": (SAVED_MODEL,), "direction": "BtoA"},
    ),
    "super-resolution": (
        lambda: SuperResolution(blocks=1, generator_filters=4, discriminator_filters=2),
        MadeUpData(shapes={"input": (16, 24, 3), "target": (64, 96, 3)}),
        {"formats": (SAVED_MODEL, TFLITE)},
    ),
    "colourisation": (
        lambda: Colourisation(**UNET),
        MadeUpData(colour_space="lab"),
        {"formats": (SAVED_MODEL,)},
    ),
    "code": (
        lambda: BicycleGan(
            latent_networks=LatentNetworks(
                generator="unet_32",
                encoder="resnet_32",
                latent_size=3,
                generator_filters=4,
                encoder_filters=2,
            ),
            discriminators=ScaledDiscriminators(filters=2),
        ),
        MadeUpData(),
        {"formats": (SAVED_MODEL,)},
    ),
    "side": (
        lambda: Pix2Pix(**UNET, side_information=SideInformation(vector="film", map="concatenate")),
        MadeUpData(shapes=side_shapes()),
        {"formats": (SAVED_MODEL, KERAS, TFLITE)},
    ),
}


SIZES = {  # found by trying, which takes seconds; test_picture_sizes.py does it
    "batch statistics": PictureSizes(trained=(64, 64), multiple=32, smallest=32, factor=Fraction(1)),
    "moving statistics": PictureSizes(trained=(64, 64), multiple=32, smallest=32, factor=Fraction(1)),
    "there": PictureSizes(trained=(64, 64), multiple=4, smallest=32, factor=Fraction(1)),
    "back": PictureSizes(trained=(64, 64), multiple=4, smallest=32, factor=Fraction(1)),
    "colourisation": PictureSizes(trained=(64, 64), multiple=32, smallest=32, factor=Fraction(1)),
    "code": PictureSizes(trained=(64, 64), multiple=32, smallest=64, factor=Fraction(1)),
    "side": PictureSizes(trained=(32, 64), multiple=32, smallest=32, factor=Fraction(1)),
}


def randomise(network, seed=0):
    """Weights with which every layer matters, and no activation explodes."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        fan_in = max(1, np.prod(weight.shape[:-1]))
        value = rng.normal(0, 1.2 / np.sqrt(fan_in), weight.shape) if weight.shape else weight.numpy()
        if weight.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, weight.shape)
        elif weight.name in ("beta", "bias", "moving_mean"):
            value = rng.normal(0, 0.1, weight.shape)
        weight.assign(value)


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export and the run that it is of."""

    path: str
    files: dict
    trainer: Trainer
    networks: dict
    examples: dict


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Builds the trainer of a run that has not trained, with random weights."""

    def make(task, data, **settings):
        run = RunDirectory(str(tmp_path_factory.mktemp("run")))
        run.create()
        settings = {"strategy": "one_device", "total_examples": 8} | settings
        trainer = Trainer(Experiment(task=task, data=data, **settings), run)
        for number, network in enumerate(trainer.state.networks.values()):
            randomise(network, number)
        return trainer

    return make


@pytest.fixture(scope="module")
def export_run(make_run, tmp_path_factory):
    """Exports one of `RUNS` once, with its flags or others; further calls give the same export."""
    done = {}

    def run(name, **others):
        if name not in done:
            make_task, data, flags = RUNS[name]
            trainer = make_run(make_task(), data)
            output = str(tmp_path_factory.mktemp("exports") / name.replace(" ", "_"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(exported_run, "restore_run", lambda *_, **__: trainer)
                if name in SIZES:
                    patch.setattr(exported_run, "find_sizes", lambda *_: SIZES[name])
                files = export(
                    workdir="run", output=output, examples=2, calibration_examples=4, **(others or flags)
                )
            [batch] = data.evaluation("val", batch=5)
            done[name] = Exported(
                path=output,
                files={(file.format, file.dtype): file for file in files},
                trainer=trainer,
                networks=trainer.state.networks,
                examples={key: value.numpy() for key, value in batch.items()},
            )
        return done[name]

    return run


OUTSIDE = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import keras

folder = sys.argv[1]
results = {}
for number, job in enumerate(json.load(open(os.path.join(folder, "jobs.json")))):
    with np.load(os.path.join(folder, f"{number}.npz")) as arrays:
        given = {name: tf.constant(value) for name, value in arrays.items()}
    if job["path"].endswith(".keras"):
        network = keras.saving.load_model(job["path"])
        inputs = list(given.values())
        results[str(number)] = network(inputs if len(inputs) > 1 else inputs[0], training=False).numpy()
    else:
        signature = tf.saved_model.load(job["path"]).signatures["serving_default"]
        results[str(number)] = signature(**given)["output"].numpy()
assert not {"engine", "models", "data", "tests"} & {name.split(".")[0] for name in sys.modules}
np.savez(os.path.join(folder, "results.npz"), **results)
"""


@pytest.fixture(scope="session")
def run_outside(tmp_path_factory):
    """Runs SavedModels and .keras files in one process that does not have this project on its path."""

    def run(jobs):
        """Jobs are (path, features by name); returns the outputs in order."""
        folder = tmp_path_factory.mktemp("outside")
        for number, (_, features) in enumerate(jobs):
            np.savez(folder / f"{number}.npz", **features)
        (folder / "jobs.json").write_text(json.dumps([{"path": path} for path, _ in jobs]))
        done = subprocess.run(
            [sys.executable, "-P", "-c", OUTSIDE, str(folder)],
            cwd=folder,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
        with np.load(folder / "results.npz") as results:
            return [results[str(number)] for number in range(len(jobs))]

    return run
