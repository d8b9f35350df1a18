"""The child process of `engine.memory.probe`: runs real steps with more and more examples.

It reads a `Request` from stdin, builds the trainer of the configuration over random images, and prints a
`Report` after each size.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import sys
import time
from typing import Any, cast

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.batching.memory_model import next_micro_batch
from engine.cli.program import exit_code
from engine.distribution.gpus import free_gpu_bytes
from engine.distribution.host_memory import peak_resident_bytes, reset_peak_resident, resident_bytes
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.gin_config import loader
from engine.inner_loop.due_phases import DuePhases
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.memory.probe import WHAT, Report, Request
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from engine.training_data import TrainingData

STEPS = 2
"""Steps at each size. From the second on, what the first left behind is counted too."""


def run_steps(trainer: Trainer, micro_batch: int) -> float:
    """Runs `STEPS` steps with `micro_batch` examples on each replica; in one of them every phase is due.

    Returns:
      Seconds for each example on all replicas.
    """
    devices = trainer.devices
    plan = BatchLayout(
        global_batch=2 * micro_batch * devices.replicas,  # two micro-batches, so gradients are accumulated
        replicas=devices.replicas,
        largest_micro_batch=micro_batch,
        static_shapes=devices.needs_static_shapes,
    )
    iterator = distributed_batches(devices, trainer.experiment.data, position_examples=0, plan=plan)
    due = DuePhases(trainer.experiment.task.phases(), adversarial_start=trainer.plan.adversarial_start)
    began = time.perf_counter()
    trainer.loop.run(iterator, num_steps=STEPS, step=due.all_due, examples=due.adversarial_start, layout=plan)
    return (time.perf_counter() - began) / (STEPS * plan.global_batch)


def xla_report_bytes(directory: str) -> int | None:
    """Memory of the largest program that XLA compiled into `directory`; None if it compiled none.

    It counts arguments, results and temporaries, and is known without running the program. XLA_FLAGS must
    have been "--xla_dump_to=DIRECTORY --xla_dump_hlo_as_text" before the process first compiled anything.
    """
    sizes: list[int] = []
    for path in glob.glob(os.path.join(glob.escape(directory), "*memory-usage-report.txt")):
        with open(path) as file:
            sizes += [int(size) for size in re.findall(r"Total bytes used: (\d+)", file.read())]
    return max(sizes, default=None)


def _compiled_step_bytes(experiment: Experiment, batch: int, *, directory: str) -> int | None:
    """Runs one step in a whole batch, compiled with XLA; returns what `xla_report_bytes` then finds."""
    trainer = Trainer(dataclasses.replace(experiment, jit_compile=True), RunDirectory(directory))
    layout = BatchLayout(global_batch=batch, replicas=1)
    iterator = distributed_batches(trainer.devices, trainer.experiment.data, position_examples=0, plan=layout)
    trainer.loop.run(iterator, num_steps=1, step=0, examples=0, layout=layout)
    return xla_report_bytes(directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RandomData:
    """Random images with the shapes of a data set, none of whose records is read; for training only.

    Attributes:
      real: the data set; sizes and shapes are its own.
    """

    real: TrainingData

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def batches(self, *, position_examples: int, global_batch: int) -> tf.data.Dataset:
        # A batch may hold more than images, such as ids, so the names and dtypes are those of real batches.
        real = self.real.batches(position_examples=0, global_batch=1).element_spec

        def values(name: str, index: tf.Tensor) -> tf.Tensor:
            shape = self.example_spec[name].shape if name in self.example_spec else real[name].shape[1:]
            if not real[name].dtype.is_floating:
                return tf.zeros(shape, real[name].dtype)
            return tf.random.stateless_uniform(shape, [index, 0], -1.0, 1.0, real[name].dtype)

        examples = tf.data.Dataset.counter(tf.constant(position_examples, tf.int64))
        examples = examples.map(lambda index: {name: values(name, index) for name in real})
        return examples.batch(global_batch).prefetch(1)


def probe_experiment(experiment: Experiment) -> Experiment:
    """The experiment over random data, on the devices of this machine."""
    experiment = experiment.with_data_lengths()  # random data have none that a run could convert
    several_workers = experiment.strategy == "multi_worker"
    return dataclasses.replace(
        experiment,
        # Without several workers nothing asks for rows of a batch, which `_RandomData` does not support.
        data=cast(TrainingData, _RandomData(real=experiment.data)),
        strategy="auto" if several_workers else experiment.strategy,
        cpu_replicas=1 if several_workers else experiment.cpu_replicas,
        largest_micro_batch=None,
        initial_weights=None,
        jit_compile=False,  # it compiles whole batches only, and parts of a batch are measured here
    )


class _DeviceMeter:
    """Reads the memory of the trainer's devices: GPUs, a TPU, or this process on a CPU."""

    def __init__(self, trainer: Trainer, *, directory: str):
        self._directory = directory
        self._is_tpu = trainer.devices.is_tpu
        names = [":".join(name.split(":")[-2:]) for name in trainer.devices.names]
        self._gpus = [name for name in names if name.startswith("GPU")]

    def budget_bytes(self, *, host_bytes: int, fraction: float) -> int | None:
        """Memory that may be used: of the fullest GPU, None for a TPU, `host_bytes` on a CPU."""
        if self._is_tpu:
            return None
        if not self._gpus:
            return host_bytes
        budgets = []
        for name in self._gpus:
            free = free_gpu_bytes(name)
            if free is None:
                return None
            # Every peak includes what TensorFlow has taken already.
            budgets.append(int(fraction * (free + self._gpu_bytes(name, "current"))))
        return min(budgets)

    def reset_peak(self) -> None:
        """Restarts the measurement of the peak."""
        reset_peak_resident()
        for name in self._gpus:
            tf.config.experimental.reset_memory_stats(name)

    def read(self, *, peak: bool) -> int:
        """Bytes used now, or the peak since `reset_peak`."""
        if self._is_tpu:
            size = xla_report_bytes(self._directory)
            if size is None:
                raise ConfigurationError(f"{WHAT}: this TPU does not report its memory; set a number instead")
            return size
        if self._gpus:
            return max(self._gpu_bytes(name, "peak" if peak else "current") for name in self._gpus)
        return peak_resident_bytes() if peak else resident_bytes()

    def _gpu_bytes(self, name: str, which: str) -> int:
        return tf.config.experimental.get_memory_info(name)[which]


def _main(_: object) -> None:
    request = Request.from_json(sys.stdin.read())
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a task prints is not a report

    if os.path.exists("/proc/self/oom_score_adj"):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if memory runs out, the kernel should kill this process, not the parent
    configured = loader.load_experiment_text(request.config_text, where=WHAT)
    experiment = probe_experiment(configured)
    trainer = Trainer(experiment, RunDirectory(request.directory))
    meter = _DeviceMeter(trainer, directory=request.directory)
    budget_bytes = request.budget_bytes
    if budget_bytes is None:
        budget_bytes = meter.budget_bytes(host_bytes=request.host_bytes, fraction=request.fraction)
    report = Report(budget_bytes=budget_bytes)
    print(report.to_line(), end="", file=reports, flush=True)
    try:
        run_steps(trainer, 1)  # compiling takes memory too, once
        meter.reset_peak()
        resting_bytes = meter.read(peak=False)
        micro_batch: int | None = 1
        while micro_batch is not None:
            meter.reset_peak()
            sec = run_steps(trainer, micro_batch)
            point = (micro_batch, meter.read(peak=True))
            report = dataclasses.replace(report, points=(*report.points, point), sec_per_example=sec)
            print(report.to_line(), end="", file=reports, flush=True)
            micro_batch = next_micro_batch(
                report.points, resting_bytes=resting_bytes, budget_bytes=budget_bytes, limit=request.limit
            )
        if configured.jit_compile and trainer.devices.replicas == 1:
            batch = report.points[-1][0]
            size = _compiled_step_bytes(experiment, batch, directory=request.directory)
            report = dataclasses.replace(report, xla=(batch, size) if size else None)
            print(report.to_line(), end="", file=reports, flush=True)
    except tf.errors.ResourceExhaustedError:
        print(dataclasses.replace(report, exhausted=True).to_line(), end="", file=reports, flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(_main, sys.argv, None))
