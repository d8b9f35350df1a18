"""Finds the most examples that a replica can compute on at once, by real steps in a child process.

The child (`engine.memory.probe_process`) reads a request from stdin and prints a report after each size that
it has measured. If memory runs out, only the child is lost, and its last report counts. The parent's
weights, random state and data are not touched.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile

from engine.batching.memory_model import MemoryModel, largest_within
from engine.cli.program import BAD_INPUT
from engine.distribution.host_memory import free_host_bytes, resident_bytes
from engine.errors import ConfigurationError
from engine.gin_config import loader

WHAT = "LARGEST_MICRO_BATCH = 'auto'"
"""What error messages of the parent and the child are about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured.

    Attributes:
      points: (examples on each replica, peak bytes) of every size, in ascending order. Bytes are of the
        whole process on a CPU, of the fullest device on accelerators.
      model: fitted to the points.
      budget_bytes: memory that may be used; None where the device does not say how much it has (TPU).
      largest_micro_batch: most examples on each replica, within the budget and the limit.
      sec_per_example: seconds of the last size's steps for each of their examples, on all replicas together;
        None if not measured.
      xla: with JIT_COMPILE, (examples, bytes) of the step as XLA reports it; None without.
    """

    points: tuple[tuple[int, int], ...]
    model: MemoryModel
    budget_bytes: int | None
    largest_micro_batch: int
    sec_per_example: float | None = None
    xla: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the child is to measure.

    Attributes:
      config_text: the configuration, as gin text.
      limit: the largest number of examples on a replica that is of use.
      fraction: of the free memory of a device that may be used.
      budget_bytes: this much instead of a fraction; None: the fraction counts.
      host_bytes: the budget on a CPU.
      directory: an empty directory for the child's files.
    """

    config_text: str
    limit: int
    fraction: float
    budget_bytes: int | None
    host_bytes: int
    directory: str

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Undoes `to_json`."""
        return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What the child has found so far.

    Attributes:
      budget_bytes: as in `Probe`.
      points: as in `Probe`.
      exhausted: whether memory ran out at the size after the last point.
      sec_per_example: as in `Probe`.
      xla: as in `Probe`.
    """

    budget_bytes: int | None
    points: tuple[tuple[int, int], ...] = ()
    exhausted: bool = False
    sec_per_example: float | None = None
    xla: tuple[int, int] | None = None

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def last_of(cls, output: str) -> Report | None:
        """The last complete line of the child's output; None if there is none."""
        complete, _, _ = output.rpartition("\n")  # the process may have been killed while it printed
        if not complete:
            return None
        values = json.loads(complete.splitlines()[-1])
        points = tuple((batch, size) for batch, size in values["points"])
        xla = values["xla"] and tuple(values["xla"])
        return cls(**(values | {"points": points, "xla": xla}))


def measure(config_text: str, *, limit: int, fraction: float = 0.8, budget_bytes: int | None = None) -> Probe:
    """Runs the child and evaluates its report.

    Call it before this process uses TensorFlow, because the child cannot use a GPU's memory or a TPU that
    is taken here. The budget on a CPU is `fraction` of the memory that is free or used by this process:
    this process will be the one that trains, and the child uses what this one does. Reading the real data
    (`PairedImages.window_bytes`) and evaluating are not measured; the rest of the memory is for them.

    Args:
      config_text: the configuration, as `engine.gin_config.loader.load_experiment` returned it.
      limit: the largest number of examples on a replica that is of use.
      fraction: of the free memory that may be used; 0.6 leaves room for other processes.
      budget_bytes: this much instead of a fraction of what is free.

    Raises:
      ConfigurationError: not one example fits, or the child failed.
    """
    if not 0 < fraction <= 1 or limit < 1:
        raise ValueError(f"fraction = {fraction}, limit = {limit}: need 0 < fraction <= 1 and limit >= 1")
    host_bytes = int(fraction * (free_host_bytes() + resident_bytes()))
    with tempfile.TemporaryDirectory(prefix="gantry_probe_") as directory:
        request = Request(
            config_text=config_text,
            limit=limit,
            fraction=fraction,
            budget_bytes=budget_bytes,
            host_bytes=host_bytes,
            directory=directory,
        )
        # -P: only the import paths of this process, which include those of task modules beside a gin file.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "engine.memory.probe_process"],
            input=request.to_json(),
            capture_output=True,
            text=True,
            check=False,
            env=_child_environment(directory),
        )
    report = Report.last_of(done.stdout) or Report(budget_bytes=host_bytes)
    exhausted = report.exhausted or done.returncode == -signal.SIGKILL
    if done.returncode and not exhausted:
        raise _failure(done)
    points, budget = report.points, report.budget_bytes
    largest = largest_within(points, budget_bytes=budget, limit=limit, exhausted=exhausted)
    if largest == 0:
        need = f"takes {_mib(points[0][1])}" if points else "takes more memory than there is"
        allowed = f", and {_mib(budget)} may be used" if budget is not None else ""
        raise ConfigurationError(
            f"{WHAT}: one example on each replica {need}{allowed}; lower CROP_SIZE, use fewer filters, set "
            'RECOMPUTE = True, or set PRECISION = "bfloat16"'
        )
    return Probe(
        points=points,
        model=MemoryModel.fit(points),
        budget_bytes=budget,
        largest_micro_batch=largest,
        sec_per_example=report.sec_per_example,
        xla=report.xla,
    )


def _failure(done: subprocess.CompletedProcess[str]) -> ConfigurationError:
    """The error of a child that failed for another reason than memory."""
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode == BAD_INPUT:
        return ConfigurationError(reason)
    return ConfigurationError(
        f"{WHAT}: measuring memory failed ({reason}); correct that, or set a number instead of 'auto'"
    )


def _child_environment(directory: str) -> dict[str, str]:
    paths = [loader.ROOT, *(os.path.abspath(path) for path in sys.path)]
    flags = f"--xla_dump_to={directory} --xla_dump_hlo_as_text"  # for `xla_report_bytes`
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }
    environment.pop("TF_CONFIG", None)  # a child that joined the cluster would wait for the other workers
    return environment


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
