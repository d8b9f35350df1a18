"""What logical replicas, workers and the boundaries of a growing batch cost on the same cores."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from engine.launch import tf_configs
from tests.benchmarks.recorded_ratios import Row
from tests.benchmarks.training_step.peers import Peer, command_of

_QUICKSTART = ["--gin_file=gin/quickstart.gin", "--size=64", "--batch=4"]
STEPS = 10


class Group:
    """Peers that make the same steps together: one process, or one a worker.

    Args:
      command: starts each of them.
      places: what the environment of each has beside that of this process.
    """

    def __init__(self, command: Sequence[str], places: Sequence[Mapping[str, str]]):
        self._peers = [Peer(command, environment=place) for place in places]
        for peer in self._peers:  # all run already: workers wait for each other
            peer.wait()

    def run(self, steps: int) -> float:
        """Seconds a step, of the slowest."""
        for peer in self._peers:
            peer.ask(steps)
        return max(peer.read()["sec"] for peer in self._peers)

    def close(self) -> None:
        """Ends them together."""
        for peer in self._peers:
            peer.end_input()
        for peer in self._peers:
            peer.close()


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
    workers = [{"TF_CONFIG": config} for config in tf_configs(2)]
    with contextlib.ExitStack() as stack:
        groups = {}
        for name, flags, places in (
            ("1 replica", [], [{}]),
            ("2 replicas", ["--replicas=2"], [{}]),
            ("2 workers", ["--replicas=2"], workers),
        ):
            groups[name] = Group(command_of("engine_peer", *_QUICKSTART, *flags), places)
            stack.callback(groups[name].close)
        yield groups
