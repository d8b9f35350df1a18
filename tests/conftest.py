"""Devices and data that the tests share."""

import data.quiet_tensorflow  # noqa: F401

# isort: split
import dataclasses
import itertools
import os

import keras
import pytest
import tensorflow as tf

from data.synthetic import prepare_synthetic
from engine.cluster import set_precision
from engine.experiment import Experiment
from engine.run_directory import RunDirectory
from engine.trainer import Trainer
from models.layers import Conv, image_input, normalize, variable_dtype
from models.pix2pix import Pix2Pix

# Three logical CPUs, so that 1, 2 and 3 replicas can be compared in one process. This must come before
# anything starts TensorFlow's runtime.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)


@pytest.fixture(autouse=True)
def float32_policy():
    """Keras's precision is global: no test inherits another's."""
    set_precision("float32")


@pytest.fixture(scope="session")
def real_images() -> str:
    """The folder of real images that GANTRY_TEST_DATA names."""
    path = os.environ.get("GANTRY_TEST_DATA")
    if not path or not os.path.isdir(path):
        pytest.skip("GANTRY_TEST_DATA names no folder of real images")
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisePairs:
    """Training data made up in memory: smooth random inputs, targets that depend on them.

    Example k of the endless stream is a pure function of k modulo `train_examples`, so any position can
    be asked for. Fulfils `engine.feeding.TrainingData`.
    """

    train_examples: int = 12
    size: int = 64
    evaluation_split: str = "val"
    is_paired: bool = True
    colour_space: str = "rgb"

    @property
    def example_spec(self):
        spec = tf.TensorSpec([self.size, self.size, 3], tf.float32)
        return {"input": spec, "target": spec}

    def example(self, index):
        """One example: "input", "target" [size, size, 3] and "id"."""
        seed = tf.stack([tf.cast(index, tf.int32), 7])
        coarse = tf.random.stateless_uniform([8, 8, 3], seed, -1.0, 1.0)
        picture = tf.image.resize(coarse, [self.size, self.size])
        return {"input": picture, "target": picture[..., ::-1] * 0.5, "id": index}

    def batches(self, *, position_examples, global_batch, rows=None):
        ids = tf.data.Dataset.counter(position_examples, dtype=tf.int64)
        if rows is not None:
            ids = ids.enumerate().filter(lambda n, _: tf.reduce_any(n % global_batch == rows))
            ids = ids.map(lambda _, index: index)
            global_batch = len(rows)
        return ids.map(lambda index: self.example(index % self.train_examples)).batch(global_batch)

    def notes(self):
        return []

    def evaluation(self, split, *, batch):
        first = {"train": 0, "val": 1000, "test": 2000}[split]
        ids = tf.data.Dataset.range(first, first + 5)
        return ids.map(self.example).batch(batch)


class SmallPix2Pix(Pix2Pix):
    """pix2pix with networks of two layers: compiled in a second, with norm and dropout."""

    def networks(self, example):
        inputs, outputs = (example[role].shape[-1] for role in ("input", "target"))

        def network(name, channels_in, channels_out, activation, stride):
            x = image = image_input(channels_in)
            x = Conv(4, 4, stride=2, padding=1, name="conv")(x)
            x = normalize(x, self.norm, inference_norm=self.inference_norm, name="norm")
            x = keras.layers.Activation("relu", name="relu")(x)
            if self.dropout and stride == 1:
                x = keras.layers.Dropout(0.5, name="dropout")(x)
            if stride == 1:
                x = keras.layers.UpSampling2D(name="up")(x)
            x = Conv(channels_out, 3, stride=stride, padding=1, name="out")(x)
            x = keras.layers.Activation(activation, dtype=variable_dtype(), name="activation")(x)
            return keras.Model(image, x, name=name)

        return {
            "generator": network("generator", inputs, outputs, "tanh", 1),
            "discriminator": network("discriminator", inputs + outputs, 3, "linear", 2),
        }


@pytest.fixture
def small_pix2pix():
    return SmallPix2Pix


@pytest.fixture(scope="session")
def synthetic_datasets(tmp_path_factory) -> str:
    """A data directory in which the embedded data set is prepared."""
    directory = str(tmp_path_factory.mktemp("datasets"))
    prepare_synthetic(directory)
    return directory


@pytest.fixture
def noise_pairs():
    return NoisePairs


@pytest.fixture
def make_trainer(tmp_path):
    """Builds a trainer on logical CPUs; a run directory of its own unless one is given."""
    count = itertools.count()

    def make(task, data, *, workdir=None, **settings):
        run = RunDirectory(workdir or str(tmp_path / f"run{next(count)}"))
        run.create()
        settings = {"strategy": "mirrored", "log_every": 1, "evaluate_every": 0} | settings
        return Trainer(Experiment(task=task, data=data, **settings), run)

    return make
