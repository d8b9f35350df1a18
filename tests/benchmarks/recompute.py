"""Peak memory and seconds of a step with and without recomputation, in two processes that step by turns.

    python -m tests.benchmarks.recompute --case=unet_256:4 --case=resnet_9blocks:1

A case is a generator and a batch, at 256x256, on the CPU; the discriminator is the reference's PatchGAN. The
peak is the process's resident memory in all steps, less what it holds before the first one: activations,
gradients and tracing. (Between steps the process keeps what it frees, so a later step alone has no peak of
its own.) "By formula" are the tensors alone at the peak of the traced step, as `engine.doctor` counts them.
The first step traces and is not timed; seconds are medians, and so is their ratio, of neighbouring steps.
"""

import contextlib
import statistics
import sys
import tempfile
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
from tests.benchmarks.training_step.peer_protocol import serve
from tests.benchmarks.training_step.peers import Peer
from tests.helpers.small_training import NoisePairs

CASES = flags.DEFINE_multi_string("case", ["unet_256:4", "resnet_9blocks:1"], "GENERATOR:BATCH.")
SIZE = flags.DEFINE_integer("size", 256, "Height and width of the images.")
STEPS = flags.DEFINE_integer("steps", 9, "Steps after the first one.")
JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Compile the step with XLA.")
_RECOMPUTE = flags.DEFINE_bool("recompute", None, "Set in the child processes.")


def trainer_of(case: str, *, recompute: bool) -> Trainer:
    """The trainer of a case."""
    generator, batch = case.split(":")
    experiment = Experiment(
        task=Pix2Pix(generator=generator, norm="batch" if generator.startswith("unet") else "instance"),
        data=NoisePairs(size=SIZE.value),
        total_examples=1,
        strategy="one_device",
        batch_schedule=int(batch),
        feature_extractor=None,
        recompute=recompute,
        jit_compile=JIT_COMPILE.value,
    )
    return Trainer(experiment, RunDirectory(tempfile.mkdtemp()))


def serve_case(case: str, *, recompute: bool) -> None:
    """Serves steps; their peak is that above the resting memory."""
    trainer = trainer_of(case, recompute=recompute)
    (layout,) = trainer.plan.batches.values()
    batches = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=layout)
    reset_peak_resident()
    resting = resident_bytes()
    serve(
        lambda: trainer.loop.run(batches, num_steps=1, step=0, examples=0, layout=layout),
        warm_up_steps=1,
        peak_bytes=lambda: peak_resident_bytes() - resting,
    )


def measure(case: str) -> tuple[list[float], list[list[float]]]:
    """Peak bytes, kept and recomputed, and the seconds of both of each turn."""
    command = [sys.executable, "-m", "tests.benchmarks.recompute", f"--case={case}", f"--size={SIZE.value}"]
    command += ["--jit_compile"] if JIT_COMPILE.value else []
    with contextlib.ExitStack() as stack:
        peers = []
        for flag in ("--norecompute", "--recompute"):
            peers.append(Peer([*command, flag]))
            stack.callback(peers[-1].close)
            peers[-1].wait()
        turns = [[peer.run(1) for peer in peers] for _ in range(STEPS.value)]
    return [row["peak_bytes"] for row in turns[-1]], [[row["sec"] for row in turn] for turn in turns]


def tensors_by_formula(case: str, *, recompute: bool) -> int:
    """Bytes of the tensors at the peak of the traced step."""
    trainer = trainer_of(case, recompute=recompute)
    trace = StepTrace(
        experiment=trainer.experiment, plan=trainer.plan, devices=trainer.devices, state=trainer.state
    )
    return whole_step_memory(trace, micro_batch=int(case.split(":")[1])).tensors.total


def main(argv: Sequence[str]) -> None:
    if argv[1:]:
        raise app.UsageError("no arguments but flags")
    if _RECOMPUTE.value is not None:
        serve_case(CASES.value[0], recompute=_RECOMPUTE.value)
        return
    print(
        "| generator:batch | MiB kept | recomputed | ratio | by formula kept | recomputed | ratio "
        "| s kept | recomputed | ratio (least to most) |"
    )
    for case in CASES.value:
        peaks, turns = measure(case)
        formula = [tensors_by_formula(case, recompute=recompute) for recompute in (False, True)]
        cells = []
        for kept, again in (peaks, formula):
            cells += [f"{kept / 2**20:.0f}", f"{again / 2**20:.0f}", f"{again / kept:.2f}"]
        cells += [f"{statistics.median(column):.2f}" for column in zip(*turns, strict=True)]
        ratios = sorted(again / kept for kept, again in turns)
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
