"""What more replicas bring, on paper: from the FLOP and the collectives of traced steps.

python -m tests.benchmarks.replica_efficiency [--tasks=pix2pix,cyclegan] [--examples=1,8]

Nothing is measured: networks are those of the gin files at 256x256, their steps are traced for replicas that
are not there, and the speeds are assumed.
"""

import argparse
from typing import NamedTuple

import data.quiet_tensorflow  # noqa: F401

# isort: split
from engine.graphs.flop import flop_of_graph
from tests.helpers.collectives import bytes_of_collectives, graph_of_step
from tests.helpers.traced_steps import task_and_data

SIZE = 256
REPLICAS = (1, 2, 4, 8, 16, 64, 256)


class Link(NamedTuple):
    """How one collective communicates."""

    bytes_per_sec: float
    latency_sec: float


class Machines(NamedTuple):
    """Replicas that compute `flop_per_sec` each, `node` of them in a node."""

    name: str
    flop_per_sec: float
    node: int
    inside: Link
    beyond: Link


MACHINES = (
    Machines(
        "GPUs, 8 in a node: 200 GB/s and 20 us inside a node, 25 GB/s and 60 us between nodes",
        40e12,
        8,
        Link(200e9, 20e-6),
        Link(25e9, 60e-6),
    ),
    Machines("GPUs, 1 in a machine: 10 Gb/s, 100 us", 40e12, 1, Link(0, 0), Link(1.25e9, 100e-6)),
    Machines(
        "TPU chips: 100 GB/s, 10 us up to 8 chips, 30 us beyond",
        80e12,
        8,
        Link(100e9, 10e-6),
        Link(100e9, 30e-6),
    ),
)


class StepCost(NamedTuple):
    """What a step costs each replica; its collectives have `fixed_bytes + N * bytes_per_replica` bytes."""

    flop: float
    collectives: int
    fixed_bytes: float
    bytes_per_replica: float

    def efficiency(self, machines, replicas):
        """The part of a step of N replicas that is not communication: a ring all-reduce after the other."""
        if replicas == 1:
            return 1.0
        compute_sec = self.flop / machines.flop_per_sec
        link = machines.inside if replicas <= machines.node else machines.beyond
        reduced_bytes = self.fixed_bytes + replicas * self.bytes_per_replica
        moved_bytes = 2 * (replicas - 1) / replicas * reduced_bytes
        return compute_sec / (
            compute_sec + moved_bytes / link.bytes_per_sec + self.collectives * link.latency_sec
        )


def cost_of_step(name, examples_per_replica):
    """Traced for 2 and 3 replicas, since bytes are linear in their number."""
    totals = []
    for replicas in (2, 3):
        task, data = task_and_data(name, size=SIZE, small=False)
        graph, _ = graph_of_step(task, data, replicas=replicas, examples_per_replica=examples_per_replica)
        found = bytes_of_collectives(graph)
        totals.append(sum(found))
    slope = totals[1] - totals[0]
    return StepCost(flop_of_graph(graph, batch=1), len(found), totals[0] - 2 * slope, slope)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="pix2pix,cyclegan")
    parser.add_argument("--examples", default="1,8", help="on each replica")
    arguments = parser.parse_args()
    costs = {}
    for task in arguments.tasks.split(","):
        for examples in map(int, arguments.examples.split(",")):
            cost = costs[f"{task}, {examples}"] = cost_of_step(task, examples)
            print(
                f"{task}, {examples}: {cost.flop / 1e9:,.0f} GFLOP, {cost.collectives} collectives, "
                f"{cost.fixed_bytes / 1e6:.2f} + {cost.bytes_per_replica / 1e6:.3f} N MB",
                flush=True,
            )
    for machines in MACHINES:
        print(f"\n{machines.name}.\n\n| Task, images a replica | N = 1 |", end="")
        print("".join(f" {n} |" for n in REPLICAS[1:]) + "\n" + "|---" * (1 + len(REPLICAS)) + "|")
        for what, cost in costs.items():
            print(f"| {what} |" + "".join(f" {cost.efficiency(machines, n):.2f} |" for n in REPLICAS))


if __name__ == "__main__":
    main()
