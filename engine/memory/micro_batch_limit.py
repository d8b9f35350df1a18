"""A micro-batch that fits: measured once, kept in the run, made smaller if memory runs out after all.

The run directory holds what was found in `micro_batch.json`, so that a restart neither measures again nor
differs. On other devices, or after a change of the configuration, it is measured anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import tensorflow as tf

from engine.batch_schedules import resolve_batch_schedule
from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.memory import probe
from engine.storage.atomic_files import write_text
from engine.storage.run_directory import RunDirectory, to_json


def fit(
    experiment: Experiment, run: RunDirectory, config_text: str, *, say: Callable[[str], None]
) -> Experiment:
    """The experiment with a number for its largest micro-batch, or None if whole batches are asked for.

    Call it before this process uses a device.

    Args:
      config_text: the configuration as text, for the process that measures.
      say: told what is measured and found.

    Raises:
      ConfigurationError: not even one example fits.
    """
    kept, configured = _read(run), experiment.largest_micro_batch
    if kept.get("devices") == devices(experiment) and (configured == "auto" or kept["memory_ran_out"]):
        found = kept["largest_micro_batch"]
        return _with(experiment, min(found, configured) if isinstance(configured, int) else found)
    if configured != "auto":
        return experiment
    say("measuring how many examples fit into memory, in a process of its own")
    found = measure(experiment, config_text)
    size = found.largest_micro_batch
    planned = f" of the {found.budget_bytes / 2**30:.2f} GiB planned for" if found.budget_bytes else ""
    say(f"at most {size} examples at once on a replica: {found.model.at(size) / 2**30:.2f} GiB{planned}")
    return _with(experiment, size)


def measure(experiment: Experiment, config_text: str) -> probe.Probe:
    """Memory of a step of the experiment, up to the largest micro-batch that its schedule can need.

    Raises:
      ConfigurationError: not even one example fits.
    """
    schedule = resolve_batch_schedule(
        experiment.batch_schedule, examples_per_epoch=experiment.data.train_examples
    )
    found = len(accelerators(experiment.gpus))
    replicas = 1 if experiment.strategy == "one_device" else found or experiment.cpu_replicas
    return probe.measure(
        config_text,
        limit=-(-max(schedule.sizes) // replicas),
        fraction=experiment.memory_fraction,
        budget_bytes=experiment.memory_bytes or None,
    )


def keep(
    experiment: Experiment, run: RunDirectory, *, largest_micro_batch: int, memory_ran_out: bool = False
) -> None:
    """Notes in the run what it computes with; on the chief, or where memory ran out.

    Args:
      memory_ran_out: it then holds whatever the configuration says.
    """
    note = {
        "largest_micro_batch": largest_micro_batch,
        "devices": devices(experiment),
        "memory_ran_out": memory_ran_out,
    }
    write_text(run.micro_batch, to_json(note) + "\n")


def halve(experiment: Experiment, run: RunDirectory, *, micro_batch: int) -> Experiment:
    """After memory ran out in a step of `micro_batch` examples on each replica: half of them, for good.

    Raises:
      ConfigurationError: it was one example.
    """
    if micro_batch == 1:
        raise ConfigurationError(
            "out of memory with one example on each replica; lower CROP_SIZE, use fewer filters, or set "
            "PRECISION = 'bfloat16' (with --allow_config_change, or in another --workdir)"
        )
    keep(experiment, run, largest_micro_batch=micro_batch // 2, memory_ran_out=True)
    return _with(experiment, micro_batch // 2)


def forget(run: RunDirectory) -> None:
    """Drops what was measured for another configuration."""
    if tf.io.gfile.exists(run.micro_batch):
        tf.io.gfile.remove(run.micro_batch)


def devices(experiment: Experiment) -> str:
    """What this process computes on, as far as memory depends on it."""
    found = [name.removeprefix("/physical_device:") for name in accelerators(experiment.gpus)]
    return ", ".join(found) if found else f"{experiment.cpu_replicas} x CPU"


def _read(run: RunDirectory) -> Mapping:
    if not tf.io.gfile.exists(run.micro_batch):
        return {}
    with tf.io.gfile.GFile(run.micro_batch) as file:
        return json.loads(file.read())


def _with(experiment: Experiment, largest_micro_batch: int) -> Experiment:
    return dataclasses.replace(experiment, largest_micro_batch=largest_micro_batch)
