"""What the training step of each task does on every replica, in numbers: the table of `step_counts.json`.

python -m tests.helpers.step_counts

writes the table anew. Do so when a change is meant to change a step, and look at the difference: on a GPU,
each of these numbers is time.
"""

import json
from pathlib import Path

from engine.distribution.precision import set_precision
from engine.graphs.functions import WITHOUT_MEMORY, bodies, needed_operations
from tests.helpers.hlo_counts import counts
from tests.helpers.lowering import hlo_here
from tests.helpers.step_programs import programs_of_steps
from tests.helpers.traced_steps import task_and_data

TABLE = Path(__file__).parents[1] / "goldens" / "step_counts.json"

CASES = {
    "pix2pix": ("pix2pix", "float32", ()),
    "pix2pix, bfloat16": ("pix2pix", "bfloat16", ()),
    "pix2pix, instance norm": ("pix2pix", "float32", ("NORM = 'instance'",)),
    "cyclegan": ("cyclegan", "float32", ()),
    "cut": ("cut", "float32", ()),
    "bicycle_gan": ("bicycle_gan", "float32", ()),
    "super_resolution": ("super_resolution", "float32", ()),
}
"""Task of gin/, precision and further settings."""

REPLICAS = 2


def program_of(case, platform="GPU"):
    """The program of a step of a case, on the first of `REPLICAS` replicas."""
    task, precision, params = CASES[case]
    set_precision(precision)
    (program,) = programs_of_steps(*task_and_data(task, params), replicas=REPLICAS, platform=platform)
    return program


def operations(graph):
    """The operations of a graph that TensorFlow runs one after another, if XLA does not compile it."""
    for operation in needed_operations(graph):
        if operation.type not in WITHOUT_MEMORY:
            yield operation
        for body in bodies(operation):
            yield from operations(body)


def numbers_of(program, hlo):
    """The row of the table."""
    return {"operations of the graph": sum(1 for _ in operations(program.graph))} | counts(hlo)


def main():
    table = {}
    for case in CASES:
        program = program_of(case)
        table[case] = numbers_of(program, hlo_here(program))
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
