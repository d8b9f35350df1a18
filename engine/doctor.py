"""Describes this machine, and prints the plan of a configuration before you train.

python -m engine.doctor
python -m engine.doctor --gin_file=gin/pix2pix_facades.gin
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence

import psutil
import tensorflow as tf
from absl import flags

from engine.batching.memory_model import MemoryModel
from engine.cli.gin_flags import define_gin_flags
from engine.cli.program import run_program
from engine.distribution.gpus import gpu_uses, physical_devices
from engine.distribution.precision import PRECISIONS
from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError
from engine.gin_config import loader
from engine.inner_loop.train_state import trainable_parameters
from engine.memory import micro_batch_limit
from engine.memory.probe import Probe
from engine.optimizers import Optimizer
from engine.outer_loop.best_checkpoint import best_line
from engine.outer_loop.rate_warnings import find_zero_rates
from engine.outer_loop.run_plan import RunPlan
from engine.outer_loop.stopping import stopping_lines
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from engine.task import Task

_PACKAGES = ("keras", "numpy", "tensorflow-datasets", "gin-config", "absl-py", "tensorboard")


def machine_report() -> str:
    """Versions, devices and memory of this machine, as text."""
    found = accelerators()
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    memory = psutil.virtual_memory()
    lines = [
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, {', '.join(versions)}",
        f"CPU cores: {psutil.cpu_count()}, host memory: {memory.total / 2**30:.1f} GiB, of which "
        f"{memory.available / 2**30:.1f} GiB available",
        f"Number of accelerators: {len(found)}",
        *(_gpu_lines() or (f"  {name}" for name in found)),
        f"Precisions: {', '.join(PRECISIONS)}",
    ]
    return "\n".join(lines)


def _gpu_lines() -> list[str]:
    """Each GPU with its number in the setting GPUS, and how much of it is in use."""
    gpus = physical_devices("GPU")
    try:
        uses = [f"{use}{', idle' if use.is_idle else ''}" for use in (gpu_uses() if gpus else [])]
    except ConfigurationError:  # only GPUS = "idle" needs it
        uses = ["use unknown"] * len(gpus)
    return [
        f"  {number}: {gpu.name}, {use}" for number, (gpu, use) in enumerate(zip(gpus, uses, strict=True))
    ]


def plan_report(
    *, gin_files: Sequence[str], gin_params: Sequence[str] = (), measure_memory: bool = True
) -> str:
    """The devices, networks, memory and batches of a configuration, as text.

    Args:
      gin_files: configuration files.
      gin_params: overrides, such as "BATCH_SCHEDULE = 8".
      measure_memory: runs a few steps in a process of its own, on made-up images.

    Raises:
      ConfigurationError, data.errors.DataError: a training would be refused for the same reason.
    """
    experiment, text = loader.load_experiment(gin_files=gin_files, gin_params=gin_params)
    is_automatic = experiment.largest_micro_batch == "auto"
    probe = micro_batch_limit.measure(experiment, text) if measure_memory or is_automatic else None
    if probe and is_automatic:
        experiment = dataclasses.replace(experiment, largest_micro_batch=probe.largest_micro_batch)
    trainer = Trainer(experiment, RunDirectory(""))
    plan, devices = trainer.plan, trainer.devices
    epochs = plan.total_examples / experiment.data.train_examples
    lines = [
        f"Strategy: {type(devices.strategy).__name__}, {devices.replicas} "
        f"replica{'s' * (devices.replicas > 1)} on {', '.join(devices.names)}; {experiment.precision}"
        f"{', deterministic' if experiment.determinism else ''}",
        f"Data: {experiment.data.train_examples} training examples; evaluation on "
        f"{experiment.data.evaluation_split}; {plan.total_examples} examples in all, {epochs:.1f} epochs",
        *(
            f"Network {name}: {trainable_parameters(network):,} parameters"
            for name, network in trainer.state.networks.items()
        ),
        best_line(plan, experiment.data),
        *stopping_lines(plan),
        *([_memory(probe, plan)] if probe else []),
        *plan_table(plan, experiment.task, probe.model if probe else None),
        *(f"Warning: {line}" for line in find_zero_rates(plan, experiment.task).plan_lines()),
    ]
    return "\n".join(lines)


def plan_table(plan: RunPlan, task: Task, memory: MemoryModel | None) -> list[str]:
    """A table with a row for each piece of the batch schedule, as lines of text.

    A size that training decides on has no position: its row says "when decided". The learning rates are
    those of the first and last step of the piece, without a warm-up.

    Args:
      plan: the settings, resolved.
      task: its phases have a column each.
      memory: as measured; None omits the column.
    """
    titles = ["from example", "global batch", "replicas", "micro-batch", "accumulation", "steps"]
    phases = task.phases()
    titles += [f"learning rate of {phase.name}" for phase in phases]
    titles += ["estimated memory"] if memory else []
    rows = [titles]
    for start, size, steps in _pieces(plan):
        batch = plan.batches[size]
        rates = [_rates(plan, task.optimizers[phase.optimizer], start, size, steps) for phase in phases]
        sizes = (batch.global_batch, batch.replicas, batch.micro_batch, batch.accumulation)
        position = "when decided" if start is None else str(start)
        cells = [position, *map(str, sizes), "-" if steps is None else str(steps), *rates]
        rows.append(cells + ([f"{memory.at(batch.micro_batch) / 2**30:.2f} GiB"] if memory else []))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _pieces(plan: RunPlan) -> Iterator[tuple[int | None, int, int | None]]:
    """(position of its first step, global batch, steps) of each piece that the run reaches."""
    pieces = plan.schedule.pieces
    is_adaptive = any(start is None for start, _ in pieces)
    position = 0
    for index, (_, size) in enumerate(pieces):
        if is_adaptive:
            yield (None if index else 0), size, None
            continue
        end = pieces[index + 1][0] if index + 1 < len(pieces) else None
        end = plan.total_examples if end is None else min(end, plan.total_examples)
        steps = max(0, -(-(end - position) // size))
        if steps:
            yield position, size, steps
        position += steps * size


def _rates(plan: RunPlan, settings: Optimizer, start: int | None, size: int, steps: int | None) -> str:
    def rate(examples: int) -> str:
        hyperparameters = plan.scaling.hyperparameters(
            settings,
            examples=tf.constant(examples, tf.int64),
            global_batch=tf.constant(size),
            growth=tf.constant(size / plan.scaling.first_batch, tf.float64),
            plateau_factor=tf.constant(1.0, tf.float64),
        )
        return f"{float(hyperparameters.learning_rate):.3g}"

    first, last = rate(start or 0), rate((start or 0) + ((steps or 1) - 1) * size)
    return first if first == last else f"{first} to {last}"


def _memory(probe: Probe, plan: RunPlan) -> str:
    """The memory that a step needs, and whether the plan fits."""
    constant, each = probe.model.constant_bytes / 2**30, probe.model.bytes_per_example / 2**30
    text = f"Memory: {constant:.2f} GiB and {each:.3f} GiB for each example of a micro-batch"
    if not probe.budget_bytes:
        return f"{text}; how much may be used is unknown here"
    text += f"; {probe.budget_bytes / 2**30:.2f} GiB may be used"
    if max(batch.micro_batch for batch in plan.batches.values()) <= probe.largest_micro_batch:
        return f"{text}: the plan fits"
    return (
        f"{text}: the plan does NOT fit; LARGEST_MICRO_BATCH = {probe.largest_micro_batch} or 'auto' makes "
        "it fit with the same global batch"
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    define_gin_flags(values)
    flags.DEFINE_bool(
        "measure_memory",
        True,
        "Estimate memory by running a few steps in a process of its own.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    machine = machine_report()  # before the plan, which allocates memory on the GPUs
    plan = ""
    if values.gin_file:
        plan = plan_report(
            gin_files=values.gin_file,
            gin_params=values.gin_param,
            measure_memory=values.measure_memory,
        )
    print(machine)
    print(plan, end="\n" if plan else "")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
