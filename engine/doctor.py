"""Describes this machine, and says what a configuration needs before you train: memory, time, devices.

python -m engine.doctor
python -m engine.doctor --gin_file=gin/pix2pix_facades.gin
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import psutil
import tensorflow as tf
from absl import flags

from engine.cli.gin_flags import define_gin_flags
from engine.cli.program import run_program
from engine.diagnosis.accelerator_users import find_users, user_lines
from engine.diagnosis.advice import disk_advice, precision_advice
from engine.diagnosis.cpu_process import process_bytes
from engine.diagnosis.device_verdicts import Demand
from engine.diagnosis.machine import machine_report
from engine.diagnosis.memory_lines import Measured, device_lines, formula_lines, measured_lines
from engine.diagnosis.network_table import network_lines
from engine.diagnosis.plan_table import plan_table
from engine.diagnosis.recipes import recipe_lines
from engine.diagnosis.remedies import remedies
from engine.diagnosis.run_time import run_time_line
from engine.diagnosis.step_memory import accumulated_step_memory, whole_step_memory
from engine.diagnosis.step_trace import StepTrace, trace_step
from engine.distribution.gpus import physical_devices
from engine.distribution.host_memory import resident_bytes
from engine.experiment import Experiment
from engine.gin_config import loader
from engine.memory import micro_batch_limit
from engine.memory.probe import Probe
from engine.outer_loop.best_checkpoint import best_line
from engine.outer_loop.rate_warnings import find_zero_rates
from engine.outer_loop.stopping import stopping_lines
from engine.outer_loop.trainer import Trainer
from engine.storage.run_directory import RunDirectory


def plan_report(
    *,
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    measure_memory: bool = True,
    all_layers: bool = False,
) -> str:
    """What a configuration needs, as text: networks, memory, time, recipes, batches.

    Args:
      gin_files: configuration files.
      gin_params: overrides, such as "BATCH_SCHEDULE = 8".
      measure_memory: runs a few steps in a process of its own, on made-up images.
      all_layers: one line for each layer of a network; otherwise one for each block.

    Raises:
      ConfigurationError, data.errors.DataError: a training would be refused for the same reason.
    """
    experiment, text = loader.load_experiment(gin_files=gin_files, gin_params=gin_params)
    is_automatic = experiment.largest_micro_batch == "auto"
    probe = micro_batch_limit.measure(experiment, text) if measure_memory or is_automatic else None
    if probe and is_automatic:
        experiment = dataclasses.replace(experiment, largest_micro_batch=probe.largest_micro_batch)
    trainer = Trainer(experiment, RunDirectory(""))
    trace = _trace_of(trainer)
    built_bytes = resident_bytes()
    plan, task = trainer.plan, experiment.task
    cores = psutil.cpu_count() or 1
    lines = [
        *_opening(trainer),
        *network_lines(trace, all_layers=all_layers),
        *_memory(trace, probe, built_bytes=built_bytes, is_cpu=trainer.devices.kind == "CPU"),
        run_time_line(
            trace,
            sec_per_example=probe.sec_per_example if probe else None,
            kind=trainer.devices.kind,
            cores=cores,
        ),
        *recipe_lines(plan, task),
        *(f"Advice: {line}" for line in _advice(experiment, kind=trainer.devices.kind)),
        best_line(plan, experiment.data),
        *stopping_lines(plan),
        *plan_table(plan, task, probe.model if probe else None),
        *(f"Warning: {line}" for line in find_zero_rates(plan, task).plan_lines()),
    ]
    return "\n".join(lines)


def _trace_of(trainer: Trainer) -> StepTrace:
    """The step of a trainer on one of its devices."""
    if isinstance(trainer.devices.strategy, tf.distribute.OneDeviceStrategy):
        return StepTrace(
            experiment=trainer.experiment, plan=trainer.plan, devices=trainer.devices, state=trainer.state
        )
    return trace_step(trainer.experiment, trainer.plan)


def _opening(trainer: Trainer) -> list[str]:
    experiment, plan, devices = trainer.experiment, trainer.plan, trainer.devices
    epochs = plan.total_examples / experiment.data.train_examples
    return [
        f"Strategy: {type(devices.strategy).__name__}, {devices.replicas} "
        f"replica{'s' * (devices.replicas > 1)} on {', '.join(devices.names)}; {experiment.precision}"
        f"{', deterministic' if experiment.determinism else ''}",
        f"Data: {experiment.data.train_examples} training examples; evaluation on "
        f"{experiment.data.evaluation_split}; {plan.total_examples} examples in all, {epochs:.1f} epochs",
    ]


def _memory(trace: StepTrace, probe: Probe | None, *, built_bytes: int, is_cpu: bool) -> list[str]:
    layouts = trace.plan.batches.values()
    micro_batch = max(layout.micro_batch for layout in layouts)
    whole = whole_step_memory(trace, micro_batch=micro_batch)
    planned = Demand(whole_bytes=whole.total, accumulated=accumulated_step_memory(trace, most=micro_batch))
    accumulates = any(layout.accumulation > 1 for layout in layouts)
    lines = formula_lines(
        whole,
        accumulates=planned.accumulated.at(micro_batch) if accumulates else None,
        precision=trace.experiment.precision,
    )
    if probe:
        estimated = planned.accumulated.at(probe.points[-1][0])
        if is_cpu:
            estimated += process_bytes(
                trace.accumulated, built_bytes=built_bytes, state_bytes=whole.state.total
            )
        lines += measured_lines(
            Measured(probe=probe, estimated_bytes=estimated, is_process=is_cpu), trace.plan
        )
    return lines + device_lines(planned, remedies(trace, micro_batch=micro_batch), micro_batch=micro_batch)


def _advice(experiment: Experiment, *, kind: str) -> list[str]:
    details = [tf.config.experimental.get_device_details(gpu) for gpu in physical_devices("GPU")]
    capabilities = [each["compute_capability"] for each in details if "compute_capability" in each]
    folder = getattr(experiment.data, "data_dir", "")
    return [
        *precision_advice(experiment.precision, kind=kind, compute_capabilities=tuple(capabilities)),
        *disk_advice(folder),
    ]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    define_gin_flags(values)
    flags.DEFINE_bool(
        "measure_memory",
        True,
        "Measure memory and time too, by a few steps in a process of its own.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "layers", False, "List every layer of every network, not only blocks of layers.", flag_values=values
    )


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    machine = [machine_report(), *user_lines(find_users())]  # before the plan, which allocates on the GPUs
    plan = ""
    if values.gin_file:
        plan = plan_report(
            gin_files=values.gin_file,
            gin_params=values.gin_param,
            measure_memory=values.measure_memory,
            all_layers=values.layers,
        )
    print(*machine, sep="\n")
    print(plan, end="\n" if plan else "")


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
