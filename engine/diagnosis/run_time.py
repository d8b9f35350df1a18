"""About how long a run takes on this machine."""

from __future__ import annotations

from engine.diagnosis.step_trace import StepTrace
from engine.graphs.flop import flop_of_graph

CPU_FLOP_PER_SEC_PER_CORE = 40e9
"""Of a training step on one core with AVX-512: 20e9 to 100e9 by task (tests/benchmarks/RESULTS.md, "Tasks").
Used where no step was measured."""


def run_time_line(trace: StepTrace, *, sec_per_example: float | None, kind: str, cores: int) -> str:
    """The time of the whole run, as a line of text.

    Args:
      trace: of the step.
      sec_per_example: as measured, on all replicas; None if nothing was measured.
      kind: of the devices: "CPU", "GPU" or "TPU".
      cores: of the CPU.
    """
    flop, total = flop_of_graph(trace.whole, batch=1), trace.plan.total_examples
    text = f"Time: {flop / 1e9:,.1f} GFLOP for each example, forward and backward"
    if sec_per_example is not None:
        how = f"{1 / sec_per_example:.3g} examples a second were measured here on random images"
    elif kind == "CPU":
        sec_per_example = flop / (cores * CPU_FLOP_PER_SEC_PER_CORE)
        how = f"at an assumed {cores * CPU_FLOP_PER_SEC_PER_CORE / 1e9:.0f} GFLOP a second"
    else:
        return f"{text}; --measure_memory measures how long that takes"
    return f"{text};\n  the run of {total:,} examples takes about {duration(total * sec_per_example)} ({how})"


def duration(seconds: float) -> str:
    """A time with one unit: "3 min", "5.2 h", "12 days"."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.0f} s"
