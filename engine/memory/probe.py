"""Finds the most examples that a replica can compute on at once, by trying in a process of its own.

The parent calls `measure`. The child, `python -m engine.memory.probe`, reads a request from stdin, builds the
trainer of the configuration over made-up images, and runs real steps with more and more examples. It
prints a line of JSON for each size, so if memory runs out after all, only the child is lost, and what it
had found is kept. Weights, random state and data of the run are never touched.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import tensorflow as tf

from engine.batching.batch_layout import BatchLayout
from engine.cli.program import exit_code
from engine.distribution.gpus import free_gpu_bytes
from engine.distribution.strategies import needs_static_shapes
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.gin_config import loader
from engine.input_pipeline.distributed_batches import distributed_batches
from engine.memory import usage
from engine.memory.usage import MemoryModel
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory
from engine.training_data import TrainingData

STEPS = 2
"""Steps at each size; from the second on, what the first left behind is counted too."""

_FAILED, _BAD_INPUT = 1, 2
_WHAT = "LARGEST_MICRO_BATCH = 'auto'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What was found.

    Args:
      points: (examples on each replica, peak bytes) of every size tried, rising. Bytes are of the whole
        process on the host, of the fullest device on accelerators.
      model: the line through them.
      budget_bytes: what was allowed; None where the device does not tell how much it has (TPU).
      largest_micro_batch: most examples on each replica, within the budget and the limit.
    """

    points: tuple[tuple[int, int], ...]
    model: MemoryModel
    budget_bytes: int | None
    largest_micro_batch: int


def measure(config_text: str, *, limit: int, fraction: float = 0.8, budget_bytes: int | None = None) -> Probe:
    """Runs the child and reads what it finds.

    Call it before this process uses TensorFlow: a GPU's memory or a TPU taken here is missing there.
    The host's budget is `fraction` of what is free and what this process occupies together: this
    process will be the one that trains, and the child has all that it has. Reading the real data
    (`PairedImages.window_bytes`) and evaluating are not measured; the rest of the fraction is for them.

    Args:
      config_text: the configuration, as `engine.gin_config.loader.load_experiment` returned it.
      limit: the largest number of examples on a replica that is of use.
      fraction: of the free memory that may be used; 0.6 leaves room for neighbours.
      budget_bytes: this much instead of a fraction of what is free.

    Raises:
      ConfigurationError: not one example fits, or the child failed.
    """
    if not 0 < fraction <= 1 or limit < 1:
        raise ValueError(f"fraction = {fraction}, limit = {limit}: need 0 < fraction <= 1 and limit >= 1")
    host_bytes = int(fraction * (usage.free_host_bytes() + usage.resident_bytes()))
    with tempfile.TemporaryDirectory(prefix="gantry_probe_") as directory:
        request = {
            "config": config_text,
            "limit": limit,
            "fraction": fraction,
            "budget_bytes": budget_bytes,
            "host_bytes": host_bytes,
            "directory": directory,
        }
        # -P: the paths of this process, those of task modules beside a gin file included, and no other.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "engine.memory.probe"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            env=_child_environment(directory),
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
    budget = next((line["budget_bytes"] for line in lines if "budget_bytes" in line), host_bytes)
    points = tuple((line["micro_batch"], line["peak_bytes"]) for line in lines if "peak_bytes" in line)
    exhausted = any("exhausted" in line for line in lines) or done.returncode == -signal.SIGKILL
    if done.returncode and not exhausted:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode == _BAD_INPUT:
            raise ConfigurationError(reason)
        raise ConfigurationError(
            f"{_WHAT}: measuring memory failed ({reason}); correct that, or give a number instead of 'auto'"
        )
    largest = largest_within(points, budget_bytes=budget, limit=limit, exhausted=exhausted)
    if largest == 0:
        need = f"takes {_mib(points[0][1])}" if points else "takes more memory than there is"
        raise ConfigurationError(
            f"{_WHAT}: one example on each replica {need}, and {_mib(budget)} may be used; lower CROP_SIZE, "
            'use fewer filters, or set PRECISION = "bfloat16"'
        )
    return Probe(
        points=points,
        model=MemoryModel.fit(points),
        budget_bytes=budget,
        largest_micro_batch=largest,
    )


def largest_within(
    points: Sequence[tuple[int, int]], *, budget_bytes: int | None, limit: int, exhausted: bool
) -> int:
    """Most examples within the budget, by the line through the points but never against a measurement.

    Args:
      exhausted: memory ran out at a size after the last point, so the line cannot be trusted there.
    """
    fitting = [batch for batch, size in points if budget_bytes is None or size <= budget_bytes]
    if not fitting:
        return 0
    if budget_bytes is None or exhausted:
        return max(fitting)
    most = max(fitting)
    too_large = [batch - 1 for batch, _ in points if batch > most]
    return min(limit, *too_large, max(most, MemoryModel.fit(points).largest(budget_bytes)))


def next_micro_batch(
    points: Sequence[tuple[int, int]], *, resting_bytes: int, budget_bytes: int | None, limit: int
) -> int | None:
    """The size to try next: twice the last, or the largest that should still fit; None at the end.

    Args:
      points: those measured so far, one or more.
      resting_bytes: what is in use between steps. After the first size it stands for 0 examples: less
        than a step of none would take, so the second size is judged too large rather than too small.
    """
    last, peak = points[-1]
    allowed = limit
    if budget_bytes is not None:
        known = [(0, min(resting_bytes, peak)), *points] if len(points) == 1 else points
        allowed = min(limit, MemoryModel.fit(known).largest(budget_bytes) if peak <= budget_bytes else 0)
    # A size cut short by the budget is the last one: what follows would be one example more each time.
    was_cut = len(points) > 1 and last < 2 * points[-2][0]
    following = min(2 * last, allowed)
    return following if following > last and not was_cut else None


def _child_environment(directory: str) -> dict[str, str]:
    paths = [loader.ROOT, *(os.path.abspath(path) for path in sys.path)]
    flags = f"--xla_dump_to={directory} --xla_dump_hlo_as_text"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }
    environment.pop("TF_CONFIG", None)  # a child that joined the cluster would wait for the others
    return environment


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MadeUpData:
    """Random images in place of a data set, of which no record is read; for training only."""

    stands_for: TrainingData

    def __getattr__(self, name: str):
        return getattr(self.stands_for, name)  # sizes and shapes

    def batches(self, *, position_examples, global_batch) -> tf.data.Dataset:
        # A batch may hold more than images, such as ids, so the shapes are those of real batches.
        real = self.stands_for.batches(position_examples=0, global_batch=1).element_spec

        def values(name: str, index: tf.Tensor) -> tf.Tensor:
            shape = self.example_spec[name].shape if name in self.example_spec else real[name].shape[1:]
            if not real[name].dtype.is_floating:
                return tf.zeros(shape, real[name].dtype)
            return tf.random.stateless_uniform(shape, [index, 0], -1.0, 1.0, real[name].dtype)

        examples = tf.data.Dataset.counter(tf.constant(position_examples, tf.int64))
        examples = examples.map(lambda index: {name: values(name, index) for name in real})
        return examples.batch(global_batch).prefetch(1)


def _local(experiment: Experiment) -> Experiment:
    """The experiment over made-up data and the devices of this machine."""
    alone = {"strategy": "auto", "cpu_replicas": 1} if experiment.strategy == "multi_worker" else {}
    data = _MadeUpData(stands_for=experiment.data)
    # XLA is for whole batches, and parts of them are tried here.
    whole = {"largest_micro_batch": None, "initial_weights": None, "jit_compile": False}
    return dataclasses.replace(experiment, data=data, **whole, **alone)


def _run_steps(trainer: Trainer, micro_batch: int) -> None:
    """Some steps of the real loop with `micro_batch` examples on each replica; one has all phases due."""
    replicas = trainer.strategy.num_replicas_in_sync
    plan = BatchLayout(  # two micro-batches, so that the sums of gradients are there too
        global_batch=2 * micro_batch * replicas,
        replicas=replicas,
        largest_micro_batch=micro_batch,
        static_shapes=needs_static_shapes(trainer.strategy),
    )
    iterator = distributed_batches(trainer.strategy, trainer.experiment.data, position_examples=0, plan=plan)
    all_due = math.lcm(*(phase.every for phase in trainer.experiment.task.phases())) - 1
    trainer.loop.run(iterator, num_steps=STEPS, step=all_due, examples=0, plan=plan)


class _Meter:
    """Reads the memory of what the trainer runs on: its GPUs, its TPU, or this process."""

    def __init__(self, trainer: Trainer, *, directory: str):
        self._directory = directory
        self._is_tpu = needs_static_shapes(trainer.strategy)
        devices = [":".join(name.split(":")[-2:]) for name in trainer.strategy.extended.worker_devices]
        self._gpus = [name for name in devices if name.startswith("GPU")]

    def budget_bytes(self, *, host_bytes: int, fraction: float) -> int | None:
        """Of the fullest GPU, unknown of a TPU, else what the parent says of the host."""
        if self._is_tpu:
            return None
        if not self._gpus:
            return host_bytes
        # What TensorFlow has taken here already is part of every peak.
        free = [free_gpu_bytes(name) for name in self._gpus]
        if None in free:
            return None
        taken = [self._gpu(name, "current") for name in self._gpus]
        return int(fraction * min(a + b for a, b in zip(free, taken, strict=True)))

    def reset(self) -> None:
        usage.reset_peak_resident()
        for name in self._gpus:
            tf.config.experimental.reset_memory_stats(name)

    def read(self, *, peak: bool) -> int:
        """Bytes in use now, or at most since `reset`."""
        if self._is_tpu:
            size = usage.xla_report_bytes(self._directory)
            if size is None:
                raise ConfigurationError(f"{_WHAT}: this TPU does not report memory; give a number instead")
            return size
        if self._gpus:
            return max(self._gpu(name, "peak" if peak else "current") for name in self._gpus)
        return usage.peak_resident_bytes() if peak else usage.resident_bytes()

    def _gpu(self, name: str, which: str) -> int:
        return tf.config.experimental.get_memory_info(name)[which]


def _child(_) -> None:
    request = json.load(sys.stdin)
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a task prints is no report

    def report(**line) -> None:
        print(json.dumps(line), file=reports, flush=True)

    if os.path.exists("/proc/self/oom_score_adj"):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if the kernel must end a process, this one and not the parent
    experiment = _local(loader.load_experiment_text(request["config"], where=_WHAT))
    trainer = Trainer(experiment, RunDirectory(request["directory"]))
    meter = _Meter(trainer, directory=request["directory"])
    budget_bytes = request["budget_bytes"]
    if budget_bytes is None:
        budget_bytes = meter.budget_bytes(host_bytes=request["host_bytes"], fraction=request["fraction"])
    report(budget_bytes=budget_bytes)
    points, micro_batch = [], 1
    try:
        _run_steps(trainer, 1)  # compiling takes memory too, once
        meter.reset()
        resting_bytes = meter.read(peak=False)
        while micro_batch is not None:
            meter.reset()
            _run_steps(trainer, micro_batch)
            points.append((micro_batch, meter.read(peak=True)))
            report(micro_batch=points[-1][0], peak_bytes=points[-1][1])
            micro_batch = next_micro_batch(
                points, resting_bytes=resting_bytes, budget_bytes=budget_bytes, limit=request["limit"]
            )
    except tf.errors.ResourceExhaustedError:
        report(exhausted=True)


if __name__ == "__main__":
    sys.exit(exit_code(_child, sys.argv, None))
