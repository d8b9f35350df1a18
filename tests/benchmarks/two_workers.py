"""Steps of two workers on this machine: the collectives that TensorFlow runs, and ms a step.

python -m tests.benchmarks.two_workers [--norm=batch] [--rounds=3] [--steps=20]

pix2pix at 64x64, `unet_64`, networks of 16 filters, one example on each worker. The workers share this
machine's cores and talk over its loopback interface.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time

import data.quiet_tensorflow  # noqa: F401

# isort: split
import tensorflow as tf
from tensorflow.python.distribute import cross_device_utils

from engine.batching.batch_layout import BatchLayout
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.launch import tf_configs
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from tests.benchmarks.model_costs import OnePicture, made_up_spec

SETTINGS = (
    "pix2pix.Pix2Pix.generator = 'unet_64'",
    "pix2pix.Pix2Pix.generator_filters = 16",
    "pix2pix.Pix2Pix.discriminator_filters = 16",
)


def count_traced_collectives():
    """Bytes of the all-reduces that are traced from now on; a worker has one replica."""
    found, all_reduce = [], cross_device_utils.collective_ops.all_reduce_v2

    def counted(tensor, *args, **kwargs):
        if not tf.executing_eagerly():
            found.append(tensor.shape.num_elements() * tensor.dtype.size)
        return all_reduce(tensor, *args, **kwargs)

    cross_device_utils.collective_ops.all_reduce_v2 = counted
    return found


def work(norm, rounds, steps):
    """What each worker does; the first one prints."""
    found = count_traced_collectives()
    experiment, _ = loader.load_experiment(
        gin_files=["gin/pix2pix.gin"], gin_params=[f"NORM = {norm!r}", *SETTINGS]
    )
    picture = OnePicture(stands_for=experiment.data, example_spec=made_up_spec(experiment.data, 64))
    experiment = dataclasses.replace(experiment, data=picture, strategy="multi_worker", batch_schedule=2)
    trainer = Trainer(experiment, RunDirectory(tempfile.mkdtemp()))
    layout = BatchLayout(global_batch=2, replicas=2)
    iterator = distributed_batches(trainer.devices, picture, position_examples=0, plan=layout)

    def run(num_steps):
        began = time.perf_counter()
        trainer.loop.run(iterator, num_steps=num_steps, step=0, examples=0, layout=layout)
        return 1000 * (time.perf_counter() - began) / num_steps

    found.clear()
    run(2)  # traces
    ms = [run(steps) for _ in range(rounds)]
    if trainer.devices.is_chief:
        print(f"{len(found)} collectives of {sum(found):,} bytes, {statistics.median(ms):.0f} ms a step")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norm", default="batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        work(arguments.norm, arguments.rounds, arguments.steps)
        return
    command = [sys.executable, "-m", "tests.benchmarks.two_workers", *sys.argv[1:]]
    workers = [
        subprocess.Popen(command, env={**os.environ, "TF_CONFIG": tf_config}) for tf_config in tf_configs(2)
    ]
    sys.exit(max(worker.wait() for worker in workers))


if __name__ == "__main__":
    main()
