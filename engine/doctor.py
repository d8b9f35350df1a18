"""Says what this machine offers and what a configuration would do on it, before anything runs.

python -m engine.doctor
python -m engine.doctor --gin_file=gin/pix2pix_facades.gin
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

import psutil
import tensorflow as tf
from absl import flags

from engine import config
from engine.cluster import PRECISIONS, accelerators
from engine.program import run_program
from engine.run_directory import RunDirectory
from engine.state import trainable_parameters
from engine.trainer import Trainer

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
        *(f"  {name}" for name in found),
        f"Precisions: {', '.join(PRECISIONS)}",
    ]
    return "\n".join(lines)


def plan_report(*, gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> str:
    """Devices, networks and the batch plan of a configuration, as text.

    Raises:
      ConfigurationError, data.errors.DataError: training it would be refused for the same reason.
    """
    experiment, _ = config.load_experiment(gin_files=gin_files, gin_params=gin_params)
    trainer = Trainer(experiment, RunDirectory(""))
    epochs = trainer.total_examples / experiment.data.train_examples
    lines = [
        f"Strategy: {type(trainer.strategy).__name__}, {trainer.strategy.num_replicas_in_sync} replicas on "
        f"{', '.join(trainer.strategy.extended.worker_devices)}; precision {experiment.precision}",
        f"Data: {experiment.data.train_examples} training examples; evaluation on "
        f"{experiment.data.evaluation_split}; {trainer.total_examples} examples in all, {epochs:.1f} epochs",
        *(
            f"Network {name}: {trainable_parameters(network):,} parameters"
            for name, network in trainer.state.networks.items()
        ),
        *_plan_rows(trainer),
    ]
    return "\n".join(lines)


def _plan_rows(trainer: Trainer) -> list[str]:
    optimizers = trainer.experiment.task.optimizers
    titles = ["from example", "global batch", "per replica", "accumulation", "steps"]
    titles += [f"learning rate of {name}" for name in optimizers]
    table = [titles]
    ends = [plan.first_example for plan in trainer.plans[1:]] + [trainer.total_examples]
    start = 0
    for plan, end in zip(trainer.plans, ends, strict=True):
        steps = max(0, -(-(end - start) // plan.global_batch))
        rates = [
            float(trainer.learning_rate(settings, tf.constant(start), plan.global_batch))
            for settings in optimizers.values()
        ]
        sizes = (start, plan.global_batch, plan.per_replica_batch, plan.accumulation, steps)
        table.append([*map(str, sizes), *(f"{rate:.3g}" for rate in rates)])
        start += steps * plan.global_batch
    return [
        "  ".join(cell.rjust(len(title)) for cell, title in zip(row, titles, strict=True)) for row in table
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def define_flags(values: flags.FlagValues) -> None:
    for name, text in (("gin_file", "Configuration file"), ("gin_param", "Override")):
        flags.DEFINE_multi_string(name, [], text, flag_values=values)


def main(values: flags.FlagValues) -> None:
    # The plan comes first: choosing devices must precede every other use of TensorFlow.
    plan = ""
    if values.gin_file:
        plan = plan_report(gin_files=values.gin_file, gin_params=values.gin_param)
    print(machine_report())
    print(plan, end="\n" if plan else "")


def run() -> None:
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
