"""The memory of a run as lines of text: by formula, as measured, and on the devices that people have."""

from __future__ import annotations

import dataclasses

from engine.diagnosis.device_table import KNOWN_DEVICES
from engine.diagnosis.device_verdicts import Demand, Remedy, verdict
from engine.diagnosis.step_memory import StepMemory
from engine.diagnosis.text_columns import columns
from engine.memory.probe import Probe
from engine.outer_loop.run_plan import RunPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured, and the estimate of the same.

    Attributes:
      probe: the measurement, in steps of two micro-batches.
      estimated_bytes: of such a step, for the whole process on a CPU.
      is_process: whether bytes are of the whole process, as on a CPU, or of a device.
    """

    probe: Probe
    estimated_bytes: int
    is_process: bool


def formula_lines(memory: StepMemory, *, accumulates: int | None, precision: str) -> list[str]:
    """What a step needs on each device.

    Args:
      memory: of a step of one micro-batch.
      accumulates: bytes of a step of several micro-batches of that size; None if the plan has none.
      precision: the setting.
    """
    state, tensors = memory.state, memory.tensors
    rows = [
        ("parameters", state.parameters),
        ("optimizer state", state.optimizers),
        ("moving averages", state.averages),
        ("frozen networks of losses", state.frozen_networks),
        ("other variables", state.others),
        ("activations at the peak of the step", tensors.activations),
        ("gradients and other tensors at the peak", tensors.others),
    ]
    cells = [[name, _mib(size)] for name, size in rows if size >= 2**19]
    examples = f"{memory.micro_batch} example{'s' * (memory.micro_batch != 1)}"
    lines = [
        f"Memory by formula, {examples} at once on a device, {precision}: {_mib(memory.total)}",
        *(f"  {line}" for line in columns(cells, left=1)),
        f"  All gradients of a phase take {_mib(memory.gradients)}; they come as activations go",
    ]
    if accumulates is not None:
        lines.append(f"  With accumulation, as planned for some batches: {_mib(accumulates)}")
    return lines


def measured_lines(measured: Measured, plan: RunPlan) -> list[str]:
    """What was measured, and whether the plan fits here."""
    probe = measured.probe
    size, found = probe.points[-1]
    what = "of the whole process" if measured.is_process else "of the fullest device"
    constant, each = probe.model.constant_bytes / 2**30, probe.model.bytes_per_example / 2**30
    lines = [
        f"Memory as measured {what}, 2 micro-batches of {size}: {_mib(found)}; by formula "
        f"{_mib(measured.estimated_bytes)}"
    ]
    if probe.xla:
        examples, compiled = probe.xla
        lines.append(
            f"Memory as XLA reports it, compiled step of {examples}, variables included: {_mib(compiled)}"
        )
    text = f"Memory: {constant:.2f} GiB and {each:.3f} GiB for each example of a micro-batch"
    if not probe.budget_bytes:
        return [*lines, f"{text}; how much may be used is unknown here"]
    text += f"; {probe.budget_bytes / 2**30:.2f} GiB may be used"
    if max(batch.micro_batch for batch in plan.batches.values()) <= probe.largest_micro_batch:
        return [*lines, f"{text}: the plan fits"]
    return [
        *lines,
        f"{text}: the plan does NOT fit; LARGEST_MICRO_BATCH = {probe.largest_micro_batch} or 'auto' makes "
        "it fit with the same global batch",
    ]


def device_lines(planned: Demand, remedies: list[Remedy], *, micro_batch: int) -> list[str]:
    """The verdict for each known device.

    Args:
      planned: what a step needs as the run is configured.
      remedies: settings that save memory.
      micro_batch: examples on each device that the run plans at once.
    """
    rows = [["", "GiB", "usable", "needs", ""]]
    for device in KNOWN_DEVICES:
        found = verdict(device, planned=planned, micro_batch=micro_batch, remedies=remedies)
        sizes = [f"{device.gib:g}", _gib(device.usable_bytes), _gib(found.need_bytes)]
        rows.append([device.name, *sizes, found.text])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"On other devices, {micro_batch} example{'s' * (micro_batch != 1)} at once on each. Usable memory "
        "leaves out, by assumption, 1 GiB and",
        "8 % on a GPU (CUDA, cuDNN, fragmentation), 4 % on a TPU; XLA, as on a TPU, may take less or more:",
        *(
            f"  {name:<{widths[0]}}  {'  '.join(c.rjust(w) for c, w in zip(cells, widths[1:4], strict=True))}"
            f"  {text}".rstrip()
            for name, *cells, text in rows
        ),
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
