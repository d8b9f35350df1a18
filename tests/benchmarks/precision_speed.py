"""Training steps in bfloat16 beside float32, in turn in one process.

python -m tests.benchmarks.precision_speed [--task=pix2pix] [--size=256] [--batches=1,4] [--rounds=9]

Prints the median of examples a second for both, and the median of their ratios, each of two steps that follow
each other, so that what else the machine does weighs on both.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time

from engine.batching.batch_layout import BatchLayout
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from tests.benchmarks.model_costs import made_up_trainer


def timed_step(task, size, precision, batch):
    """A function that runs one step and gives examples a second; the first call traces."""
    experiment = made_up_trainer(task, size).experiment
    experiment = dataclasses.replace(experiment, precision=precision, batch_schedule=batch)
    trainer = Trainer(experiment, RunDirectory(tempfile.mkdtemp()))
    layout = BatchLayout(global_batch=batch, replicas=1)
    iterator = distributed_batches(trainer.devices, experiment.data, position_examples=0, plan=layout)

    def run():
        began = time.perf_counter()
        trainer.loop.run(iterator, num_steps=1, step=0, examples=0, layout=layout)
        return batch / (time.perf_counter() - began)

    run()  # while the precision is set
    return run


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="pix2pix")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print("| batch | float32, examples/s | bfloat16 | ratio |\n|---|---|---|---|")
    for batch in map(int, arguments.batches.split(",")):
        runs = [timed_step(arguments.task, arguments.size, name, batch) for name in ("float32", "bfloat16")]
        for run in runs:
            run()  # the first step after tracing still compiles kernels
        rounds = [tuple(run() for run in runs) for _ in range(arguments.rounds)]
        single, half = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(after / before for before, after in rounds)
        print(f"| {batch} | {single:.2f} | {half:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
