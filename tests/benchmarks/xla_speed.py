"""Seconds of a step with and without XLA, by turns on one device.

    python -m tests.benchmarks.xla_speed --rounds=9

A small pix2pix (unet_64 of 16 filters, instance norm) at 64x64, batch 1 and 4, on made-up images.
Compiling is timed apart.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence

import tensorflow as tf
from absl import app, flags

from engine.experiment import Experiment
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import NoisePairs

ROUNDS = flags.DEFINE_integer("rounds", 9, "Turns of each.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps a turn.")


class Timed:
    """A trainer whose steps are timed; the first call compiles."""

    def __init__(self, *, batch: int, jit_compile: bool):
        settings = {"generator": "unet_64", "generator_filters": 16, "discriminator_filters": 16}
        experiment = Experiment(
            task=Pix2Pix(norm="instance", **settings),
            data=NoisePairs(size=64),
            total_examples=batch,
            strategy="one_device",
            batch_schedule=batch,
            jit_compile=jit_compile,
        )
        self._trainer = Trainer(experiment, RunDirectory(tempfile.mkdtemp()))
        self._plan = self._trainer.plan.batches[batch]
        self._iterator = distributed_batches(
            self._trainer.devices, experiment.data, position_examples=0, plan=self._plan
        )
        began = time.perf_counter()
        self.sec(steps=1)
        self.compile_sec = time.perf_counter() - began

    def sec(self, *, steps: int) -> float:
        """Seconds of one of so many steps."""
        began = time.perf_counter()
        self._trainer.loop.run(self._iterator, num_steps=steps, step=0, examples=0, layout=self._plan)
        return (time.perf_counter() - began) / steps


def main(argv: Sequence[str]) -> None:
    if argv[1:]:
        raise app.UsageError("no arguments but flags")
    print("| batch | ms without | ms with XLA | ratio (median of neighbours) | s compiling without | with |")
    print("|---|---|---|---|---|---|", flush=True)
    for batch in (1, 4):
        plain, compiled = Timed(batch=batch, jit_compile=False), Timed(batch=batch, jit_compile=True)
        turns = [(plain.sec(steps=STEPS.value), compiled.sec(steps=STEPS.value)) for _ in range(ROUNDS.value)]
        without, with_xla = (1e3 * statistics.median(column) for column in zip(*turns, strict=True))
        ratio = statistics.median(b / a for a, b in turns)
        print(
            f"| {batch} | {without:.1f} | {with_xla:.1f} | {ratio:.2f} | {plain.compile_sec:.0f} | "
            f"{compiled.compile_sec:.0f} |",
            flush=True,
        )
    print(f"TensorFlow {tf.__version__}")


if __name__ == "__main__":
    app.run(main)
