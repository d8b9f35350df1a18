"""The deterministic mode, in a process of its own, as it cannot be ended."""

import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_dataset_ops

from data.pairs import PairedImages
from data.supply import Supply
from engine.distribution.determinism import is_deterministic
from engine.gin_config import diff, loader
from engine.gin_config.free_settings import free_to_change
from engine.storage.run_directory import read_rows

PROGRAM = """
import sys
from engine.distribution.determinism import is_deterministic
from engine.experiment import Experiment
from engine.storage.run_directory import RunDirectory
from engine.errors import ConfigurationError
from engine.outer_loop.trainer import Trainer
from tests.helpers.small_training import NoisePairs, SmallPix2Pix

def trainer(name, determinism):
    run = RunDirectory(f"{sys.argv[1]}/{name}")
    run.create()
    settings = {"total_examples": 4, "batch_schedule": 2, "sample_every": 0, "determinism": determinism}
    data = NoisePairs(size=16)
    return Trainer(Experiment(task=SmallPix2Pix(), data=data, **settings), run)

trainer("plain", False)
assert not is_deterministic()
variables = []
for name in ("first", "second"):
    made = trainer(name, True)
    assert is_deterministic()
    made.run()
    variables.append({key: value.numpy().tobytes() for key, value in made.state.variables().items()})
assert len(variables[0]) > 20 and variables[0] == variables[1]
try:
    trainer("plain_again", False)
except ConfigurationError as error:
    print(error)
"""


def test_same_bits_twice_recorded_and_never_silently_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    refusal = done.stdout.splitlines()[-1]
    assert refusal.startswith("DETERMINISM = False: this process is deterministic already")
    assert "float32, deterministic; parameters" in (tmp_path / "first" / "log.txt").read_text()
    rows = read_rows(str(tmp_path / "first" / "train.jsonl"))
    assert 0 <= rows[-1]["data_wait_fraction"] < 1  # TensorFlow's own clock is refused in this mode
    assert not is_deterministic()  # the child's affair


def parallel_maps(dataset, *, deterministic):
    """How many maps of a data set run in parallel, in the graph that TensorFlow makes of it."""
    variant = dataset._variant_tensor
    if deterministic:
        variant = gen_dataset_ops.optimize_dataset_v2(
            variant, ["make_deterministic"], [], [], [tf.float32], [tf.TensorShape(None)]
        )
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy())
    return sum(node.op.startswith("ParallelMap") for node in graph.node)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_pictures_are_decoded_in_parallel_in_this_mode_too(synthetic_datasets, cache):
    """TensorFlow takes all parallelism from a data set in which it finds a single stateful operation."""
    supply = Supply() if cache == "none" else Supply(cache=cache)
    pairs = PairedImages(
        dataset="synthetic_facades", data_dir=synthetic_datasets, load_size=72, crop_size=64, supply=supply
    )
    batches = pairs.batches(position_examples=5, global_batch=3)
    expected = parallel_maps(batches, deterministic=False)
    assert expected > 0
    assert parallel_maps(batches, deterministic=True) == expected
    stateful = batches.flat_map(tf.data.Dataset.from_tensors)
    assert parallel_maps(stateful, deterministic=True) == 0


def test_free_to_change_when_a_run_goes_on():
    experiment, text = loader.load_experiment(gin_files=["gin/quickstart.gin"])
    _, other = loader.load_experiment(gin_files=["gin/quickstart.gin"], gin_params=["DETERMINISM = True"])
    assert text != other
    assert diff.differences(text, other, free_to_change=free_to_change(experiment)) == []
