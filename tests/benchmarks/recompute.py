"""Peak memory and seconds of a step with and without recomputation, each in a process of its own.

    python -m tests.benchmarks.recompute --case=unet_256:4 --case=resnet_9blocks:1

A case is a generator and a batch, at 256x256, on the CPU; the discriminator is the reference's PatchGAN. The
peak is the process's resident memory in all steps, less what it holds before the first one: activations,
gradients and tracing. (Between steps TensorFlow returns little to the system, so a later step alone has no
peak of its own.) The seconds are those of the last step; the first one traces.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags

from engine.distribution.host_memory import peak_resident_bytes, reset_peak_resident, resident_bytes
from engine.experiment import Experiment
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import NoisePairs

CASES = flags.DEFINE_multi_string("case", ["unet_256:4", "resnet_9blocks:1"], "GENERATOR:BATCH.")
SIZE = flags.DEFINE_integer("size", 256, "Height and width of the images.")
STEPS = flags.DEFINE_integer("steps", 2, "Steps after the first one.")
JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Compile the step with XLA.")
_RECOMPUTE = flags.DEFINE_bool("recompute", None, "Set in the child processes.")


def measure(case: str) -> dict[str, float]:
    """Peak bytes above the resting memory, and seconds of the last step, in this process."""
    generator, batch = case.split(":")
    experiment = Experiment(
        task=Pix2Pix(generator=generator, norm="batch" if generator.startswith("unet") else "instance"),
        data=NoisePairs(size=SIZE.value),
        total_examples=1,
        strategy="one_device",
        batch_schedule=int(batch),
        feature_extractor=None,
        recompute=_RECOMPUTE.value,
        jit_compile=JIT_COMPILE.value,
    )
    trainer = Trainer(experiment, RunDirectory(tempfile.mkdtemp()))
    plan = trainer.plan.batches[int(batch)]
    iterator = distributed_batches(trainer.devices, experiment.data, position_examples=0, plan=plan)
    reset_peak_resident()
    resting = resident_bytes()
    for step in range(1 + STEPS.value):
        began = time.perf_counter()
        trainer.loop.run(iterator, num_steps=1, step=step, examples=0, layout=plan)
        sec = time.perf_counter() - began
    return {"bytes": peak_resident_bytes() - resting, "sec": sec}


def main(argv: Sequence[str]) -> None:
    if argv[1:]:
        raise app.UsageError("no arguments but flags")
    if _RECOMPUTE.value is not None:
        print(json.dumps(measure(CASES.value[0])))
        return
    print("| generator:batch | MiB kept | recomputed | ratio | s kept | recomputed | ratio |")
    for case in CASES.value:
        found = []
        for recompute in ("norecompute", "recompute"):
            command = [sys.executable, "-m", "tests.benchmarks.recompute", f"--case={case}", f"--{recompute}"]
            command += [f"--size={SIZE.value}", f"--steps={STEPS.value}"]
            command += ["--jit_compile"] if JIT_COMPILE.value else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        kept, again = found
        print(
            f"| {case} | {kept['bytes'] / 2**20:.0f} | {again['bytes'] / 2**20:.0f} "
            f"| {again['bytes'] / kept['bytes']:.2f} | {kept['sec']:.2f} | {again['sec']:.2f} "
            f"| {again['sec'] / kept['sec']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
