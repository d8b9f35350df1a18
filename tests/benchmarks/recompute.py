"""Peak memory and seconds of a step with and without recomputation, in two processes that step by turns.

    python -m tests.benchmarks.recompute --case=unet_256:4 --case=resnet_9blocks:1

A case is a generator and a batch, at 256x256, on the CPU; the discriminator is the reference's PatchGAN. The
peak is the process's resident memory in all steps, less what it holds before the first one: activations,
gradients and tracing. (Between steps the process keeps what it frees, so a later step alone has no peak of
its own.) "By formula" are the tensors alone at the peak of the traced step, as `engine.doctor` counts them.
The first step traces and is not timed; seconds are medians, and so is their ratio, of neighbouring steps.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags

from engine.diagnosis.step_memory import whole_step_memory
from engine.diagnosis.step_trace import StepTrace
from engine.distribution.host_memory import peak_resident_bytes, reset_peak_resident, resident_bytes
from engine.experiment import Experiment
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from models.pix2pix import Pix2Pix
from tests.helpers.small_training import NoisePairs

CASES = flags.DEFINE_multi_string("case", ["unet_256:4", "resnet_9blocks:1"], "GENERATOR:BATCH.")
SIZE = flags.DEFINE_integer("size", 256, "Height and width of the images.")
STEPS = flags.DEFINE_integer("steps", 9, "Steps after the first one.")
JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Compile the step with XLA.")
_RECOMPUTE = flags.DEFINE_bool("recompute", None, "Set in the child processes.")


def serve(case: str) -> None:
    """Runs a step for each line of stdin and prints its seconds; at the end prints bytes, as JSON."""
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
    for step, _ in enumerate(sys.stdin):
        began = time.perf_counter()
        trainer.loop.run(iterator, num_steps=1, step=step, examples=0, layout=plan)
        print(time.perf_counter() - began, flush=True)
    peak = peak_resident_bytes() - resting
    trace = StepTrace(experiment=experiment, plan=trainer.plan, devices=trainer.devices, state=trainer.state)
    tensors = whole_step_memory(trace, micro_batch=int(batch)).tensors.total
    print(json.dumps({"peak": peak, "tensors": tensors}))


class Peer:
    """A process that steps when it is asked to."""

    def __init__(self, case: str, *, recompute: bool):
        command = [sys.executable, "-m", "tests.benchmarks.recompute", f"--case={case}"]
        command += ["--recompute" if recompute else "--norecompute", f"--size={SIZE.value}"]
        command += ["--jit_compile"] if JIT_COMPILE.value else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def sec(self) -> float:
        """Seconds of one more step."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> dict[str, int]:
        """Bytes: "peak" above the resting memory, and "tensors" by formula."""
        printed, _ = self._process.communicate()
        return json.loads(printed)


def main(argv: Sequence[str]) -> None:
    if argv[1:]:
        raise app.UsageError("no arguments but flags")
    if _RECOMPUTE.value is not None:
        serve(CASES.value[0])
        return
    print(
        "| generator:batch | MiB kept | recomputed | ratio | by formula kept | recomputed | ratio "
        "| s kept | recomputed | ratio (least to most) |"
    )
    for case in CASES.value:
        peers = [Peer(case, recompute=recompute) for recompute in (False, True)]
        _first, *turns = [[peer.sec() for peer in peers] for _ in range(1 + STEPS.value)]
        found = [peer.end() for peer in peers]
        cells = []
        for name in ("peak", "tensors"):
            kept, again = (each[name] for each in found)
            cells += [f"{kept / 2**20:.0f}", f"{again / 2**20:.0f}", f"{again / kept:.2f}"]
        cells += [f"{statistics.median(column):.2f}" for column in zip(*turns, strict=True)]
        ratios = sorted(again / kept for kept, again in turns)
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
