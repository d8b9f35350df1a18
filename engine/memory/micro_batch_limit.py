"""The largest micro-batch: measured once, recorded in the run, and halved if memory runs out after all.

The run directory records it in `micro_batch.json`, so a restart neither measures again nor computes
otherwise. On other devices, or after a change of the configuration, it is measured again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import tensorflow as tf

from engine.distribution.strategies import accelerators
from engine.errors import ConfigurationError
from engine.experiment import Experiment
from engine.memory import probe
from engine.storage.atomic_files import write_text
from engine.storage.run_directory import RunDirectory, to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Record:
    """The content of micro_batch.json.

    Attributes:
      largest_micro_batch: examples that a replica computes on at once; None for whole batches.
      devices: those it holds for, as `devices` names them.
      memory_ran_out: whether it was found by running out of memory; it then limits a configured number too.
    """

    largest_micro_batch: int | None
    devices: str
    memory_ran_out: bool


def resolve(
    experiment: Experiment, run: RunDirectory, config_text: str, *, log: Callable[[str], None]
) -> Experiment:
    """Replaces `largest_micro_batch = "auto"` by a number: the recorded one, or one that is measured.

    Call it before this process uses a device.

    Args:
      experiment: the settings.
      run: the run directory.
      config_text: the configuration as text, for the process that measures.
      log: called with each status line.

    Returns:
      The experiment with a number, or with None where it asks for whole batches.

    Raises:
      ConfigurationError: not even one example fits.
    """
    record, configured = _read(run), experiment.largest_micro_batch
    if record and record.devices == devices(experiment) and (configured == "auto" or record.memory_ran_out):
        recorded = record.largest_micro_batch
        if isinstance(configured, int) and recorded is not None:
            recorded = min(recorded, configured)
        return _with_limit(experiment, recorded)
    if configured != "auto":
        return experiment
    log("measuring how many examples fit into memory, in a separate process")
    found = measure(experiment, config_text)
    size = found.largest_micro_batch
    budget = f" of {found.budget_bytes / 2**30:.2f} GiB that may be used" if found.budget_bytes else ""
    log(f"at most {size} examples at once on a replica: {found.model.at(size) / 2**30:.2f} GiB{budget}")
    return _with_limit(experiment, size)


def measure(experiment: Experiment, config_text: str) -> probe.Probe:
    """Measures the memory of a step, up to the largest micro-batch that the batch schedule can need.

    Args:
      experiment: the settings.
      config_text: the same as text, for the process that measures.

    Raises:
      ConfigurationError: not even one example fits.
    """
    found = len(accelerators(experiment.gpus))
    replicas = 1 if experiment.strategy == "one_device" else found or experiment.cpu_replicas
    return probe.measure(
        config_text,
        limit=-(-max(experiment.batch_schedule_on(replicas).sizes) // replicas),
        fraction=experiment.memory_fraction,
        budget_bytes=experiment.memory_bytes or None,
    )


def record(
    experiment: Experiment,
    run: RunDirectory,
    *,
    largest_micro_batch: int | None,
    memory_ran_out: bool = False,
) -> None:
    """Writes micro_batch.json; for the chief, or for the worker on which memory ran out.

    Args:
      experiment: the settings.
      run: the run directory.
      largest_micro_batch: examples that a replica computes on at once; None for whole batches.
      memory_ran_out: whether the number also limits one that is configured.
    """
    content = _Record(
        largest_micro_batch=largest_micro_batch, devices=devices(experiment), memory_ran_out=memory_ran_out
    )
    write_text(run.micro_batch, to_json(dataclasses.asdict(content)) + "\n")


def halve(experiment: Experiment, run: RunDirectory, *, micro_batch: int) -> Experiment:
    """Halves and records the limit after memory ran out.

    Args:
      experiment: the settings.
      run: the run directory.
      micro_batch: examples on each replica in the step that did not fit.

    Raises:
      ConfigurationError: it was one example.
    """
    if micro_batch == 1:
        raise ConfigurationError(
            "out of memory with one example on each replica; lower CROP_SIZE, use fewer filters, or set "
            "PRECISION = 'bfloat16' (with --allow_config_change, or in another --workdir); RECOMPUTE = True "
            "needs neither"
        )
    record(experiment, run, largest_micro_batch=micro_batch // 2, memory_ran_out=True)
    return _with_limit(experiment, micro_batch // 2)


def discard(run: RunDirectory) -> None:
    """Removes the record, which was measured for another configuration."""
    if tf.io.gfile.exists(run.micro_batch):
        tf.io.gfile.remove(run.micro_batch)


def devices(experiment: Experiment) -> str:
    """Names the devices of this process, as far as memory depends on them."""
    found = [name.removeprefix("/physical_device:") for name in accelerators(experiment.gpus)]
    return ", ".join(found) if found else f"{experiment.cpu_replicas} x CPU"


def _read(run: RunDirectory) -> _Record | None:
    if not tf.io.gfile.exists(run.micro_batch):
        return None
    with tf.io.gfile.GFile(run.micro_batch) as file:
        return _Record(**json.loads(file.read()))


def _with_limit(experiment: Experiment, largest_micro_batch: int | None) -> Experiment:
    return dataclasses.replace(experiment, largest_micro_batch=largest_micro_batch)
