"""What logical replicas, workers and the boundaries of a growing batch cost on the same cores."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tests.benchmarks.training_step.compare import ROOT
from tests.benchmarks.whole_run.rows import Row

_PEER = [sys.executable, "-m", "tests.benchmarks.training_step.engine_peer"]
_QUICKSTART = ["--gin_file=gin/quickstart.gin", "--size=64", "--batch=4"]
STEPS = 10


class Group:
    """Peers that make the same steps together: one process, or one a worker.

    Args:
      command: starts each of them.
      places: the environment of each.
    """

    def __init__(self, command: Sequence[str], places: Sequence[Mapping[str, str]]):
        self._processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                cwd=ROOT,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | place,
            )
            for place in places
        ]
        self._read()

    def run(self, steps: int) -> float:
        """Seconds a step, of the slowest."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return max(row["sec"] for row in self._read())

    def close(self) -> None:
        """Ends them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()

    def _read(self) -> list[dict[str, float]]:
        return [self._row_of(process) for process in self._processes]

    def _row_of(self, process: subprocess.Popen) -> dict[str, float]:
        for line in process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{process.args}: ended")


def measure(*, rounds: int) -> list[Row]:
    """Rows: the quickstart's step with batch 4 on two replicas and on two workers against one."""
    names = ("1 replica", "2 replicas", "2 workers")
    with _groups() as groups:
        found: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            for name in sorted(names, reverse=turn % 2 == 1):
                found[name].append(groups[name].run(STEPS))
    sec = {name: np.array(values) for name, values in found.items()}
    return [
        {
            "table": "replicas",
            "case": "quickstart-64",
            "peer": name,
            "base": names[0],
            "speed": float(np.median(sec[names[0]] / sec[name])),
            "step_sec": float(np.median(sec[name])),
        }
        for name in names[1:]
    ]


@contextlib.contextmanager
def _groups() -> Iterator[dict[str, Group]]:
    workers = [{"TF_CONFIG": config} for config in _tf_configs(2)]
    with contextlib.ExitStack() as stack:
        groups = {}
        for name, flags, places in (
            ("1 replica", [], [{}]),
            ("2 replicas", ["--replicas=2"], [{}]),
            ("2 workers", ["--replicas=2"], workers),
        ):
            groups[name] = Group([*_PEER, *_QUICKSTART, *flags], places)
            stack.callback(groups[name].close)
        yield groups


def _tf_configs(workers: int) -> list[str]:
    """TF_CONFIG of each worker, on free ports of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("localhost", 0))
        cluster = {"worker": [f"localhost:{each.getsockname()[1]}" for each in sockets]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in range(workers)
    ]
