"""Devices and data that the tests share."""

import data.quiet_tensorflow  # noqa: F401

# isort: split
import fcntl
import gc
import itertools
import os

import pytest
import tensorflow as tf

from data.synthetic.facades import NAME, prepare_synthetic
from data.tfrecords.prepared_dataset import find_dataset
from engine.distribution.precision import set_precision
from engine.experiment import Experiment
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

# Three logical CPUs, so that 1, 2 and 3 replicas can be compared in one process. This must come before
# anything starts TensorFlow's runtime.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3
)

# What was imported stays: the collector need not walk through it again and again while networks are traced.
gc.collect()
gc.freeze()
gc.set_threshold(50_000)

# Two processes take the files from this list first, so that neither ends with a long one alone.
SLOW_FILES = (
    "packing/test_moving_runs.py",
    "exporting/test_formats.py",
    "exporting/test_saved_model.py",
    "outer_loop/test_growing_batches.py",
    "engine/test_programs.py",
    "outer_loop/test_resume.py",
    "models/test_regularisation.py",
    "inner_loop/test_gradient_accumulation.py",
    "outer_loop/test_early_endings.py",
    "models/test_cyclegan.py",
    "models/test_bicycle_gan.py",
    "distribution/test_worker_invariants.py",
    "data/test_pairs.py",
    "memory/test_probe.py",
    "pipeline/test_damaged_records.py",
    "inner_loop/test_train_loop.py",
    "inner_loop/test_replicas.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slow files first; the order inside a file stays."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((n for n, slow in enumerate(SLOW_FILES) if path.endswith(slow)), len(SLOW_FILES))

    items.sort(key=place)


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


@pytest.fixture
def small_pix2pix():
    return SmallPix2Pix


@pytest.fixture
def small_networks(monkeypatch) -> None:
    """Every pix2pix, of a gin file too, gets the networks of `SmallPix2Pix`."""
    monkeypatch.setattr(Pix2Pix, "networks", SmallPix2Pix.networks)


@pytest.fixture(scope="session")
def synthetic_datasets(tmp_path_factory) -> str:
    """A data directory in which the embedded data set is prepared, once for all processes of the run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    directory = str(folder / "synthetic_datasets")
    with open(folder / "synthetic_datasets.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not find_dataset(NAME, directory):
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
