"""What a training step of each task costs on this machine: parameters, FLOP, examples a second.

python tests/benchmarks/model_costs.py [--size=256] [--rounds=3] [--tasks=pix2pix,cyclegan]

Batch 1, every phase in its turn, made-up pictures, the networks that the task's gin file names. FLOP are
those of the graph of one step with all phases due, forward and backward; a multiplication and an addition
are two. Convolutions and matrix products are counted, element-wise work is not.
"""

import argparse
import dataclasses
import math
import tempfile
import time

import numpy as np
import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.gin_config import loader
from engine.graphs.flop import flop_of_graph
from engine.inner_loop.train_state import trainable_parameters
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory

TASKS = (
    "supervised",
    "pix2pix",
    "cyclegan",
    "cut",
    "fastcut",
    "bicycle_gan",
    "super_resolution",
    "denoising",
    "colourisation",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnePicture:
    """`TrainingData` of the same made-up example for ever; a task's own data set need not be prepared.

    Attributes:
      stands_for: that data set.
      example_spec: of the example.
    """

    stands_for: object
    example_spec: dict
    train_examples: int = 1000
    evaluation_split: str = "val"

    @property
    def is_paired(self):
        return self.stands_for.is_paired

    @property
    def colour_space(self):
        return self.stands_for.colour_space

    def batches(self, *, position_examples, global_batch, rows=None):
        example = {
            name: tf.random.stateless_uniform(spec.shape, [7, 7], -1.0, 1.0)
            for name, spec in self.example_spec.items()
        }
        batch = global_batch if rows is None else len(rows)
        return tf.data.Dataset.from_tensors(example).repeat().batch(batch).prefetch(1)

    def evaluation(self, split, *, batch):
        return self.batches(position_examples=0, global_batch=batch).take(1)

    def check_records(self, split, position_examples=None):
        pass

    def notes(self):
        return ()


def made_up_trainer(task, size):
    """A trainer of the task's gin file, batch 1."""
    experiment, _ = loader.load_experiment(gin_files=[f"gin/{task}.gin"])
    data = OnePicture(stands_for=experiment.data, example_spec=made_up_spec(experiment.data, size))
    experiment = dataclasses.replace(experiment, data=data, strategy="one_device", batch_schedule=1)
    return Trainer(experiment, RunDirectory(tempfile.mkdtemp()))


def made_up_spec(data, size):
    """Shapes of examples of [size, size, 3] targets, and of inputs as the data set makes them."""
    small = size // getattr(data, "downscale", 1)
    return {
        "input": tf.TensorSpec([small, small, 3], tf.float32),
        "target": tf.TensorSpec([size, size, 3], tf.float32),
    }


def flop_of_step(trainer):
    """Floating-point operations of the graph of one step in which all phases are due."""
    graph = trainer.loop.step_graph(trainer.experiment.data.example_spec, accumulates=False)
    return flop_of_graph(graph, batch=1)


def timed_steps(trainer):
    """A function that runs as many steps as the phases' periods ask for and gives seconds a step."""
    plan = BatchLayout(global_batch=1, replicas=1)
    iterator = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=plan)
    period = math.lcm(*(phase.every for phase in trainer.experiment.task.phases()))

    def run():
        began = time.perf_counter()
        trainer.loop.run(iterator, num_steps=period, step=0, examples=0, layout=plan)
        return (time.perf_counter() - began) / period

    return run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(TASKS))
    arguments = parser.parse_args()
    print("| gin file | parameters | GFLOP a step | examples a second |\n|---|---|---|---|")
    for task in arguments.tasks.split(","):
        trainer = made_up_trainer(task, arguments.size)
        parameters = ", ".join(
            f"{name} {trainable_parameters(network) / 1e6:.2f} M"
            for name, network in trainer.state.networks.items()
        )
        flop = flop_of_step(trainer)
        run = timed_steps(trainer)
        run()  # traces
        sec = np.median([run() for _ in range(arguments.rounds)])
        print(f"| {task} | {parameters} | {flop / 1e9:.0f} | {1 / sec:.2f} |", flush=True)


if __name__ == "__main__":
    main()
