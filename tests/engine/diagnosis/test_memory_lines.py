"""What the doctor prints about memory."""

import dataclasses

from engine.batching.memory_model import MemoryModel
from engine.diagnosis.memory_lines import Measured, formula_lines, measured_lines
from engine.diagnosis.step_memory import StateMemory, StepMemory
from engine.graphs.tensor_memory import TensorBytes
from engine.memory.probe import Probe
from tests.engine.diagnosis.conftest import plan_of

MIB = 2**20

MEMORY = StepMemory(
    micro_batch=4,
    state=StateMemory(
        parameters=100 * MIB, frozen_networks=0, optimizers=200 * MIB, averages=50 * MIB, others=8
    ),
    gradients=90 * MIB,
    tensors=TensorBytes(activations=400 * MIB, others=30 * MIB),
)

PROBE = Probe(
    points=((1, 500 * MIB), (4, 1000 * MIB)),
    model=MemoryModel(constant_bytes=2**30, bytes_per_example=2**28),
    budget_bytes=2**32,
    largest_micro_batch=4,
    xla=(4, 700 * MIB),
)


def test_each_part_has_a_line_and_small_ones_have_none():
    lines = formula_lines(MEMORY, accumulates=900 * MIB, precision="float32")
    assert lines[0] == "Memory by formula, 4 examples at once on a device, float32: 780 MiB"
    assert [line.split()[-2:] for line in lines[1:6]] == [
        [size, "MiB"] for size in ("100", "200", "50", "400", "30")
    ]
    assert not any("frozen" in line or "other variables" in line for line in lines)
    assert "90 MiB" in lines[-2] and "900 MiB" in lines[-1]


def test_measurements_stand_beside_the_formula(experiment):
    measured = Measured(probe=PROBE, estimated_bytes=1050 * MIB, is_process=True)
    lines = measured_lines(measured, plan_of(experiment))
    assert lines[0] == (
        "Memory as measured of the whole process, 2 micro-batches of 4: 1,000 MiB; by formula 1,050 MiB"
    )
    assert "compiled step of 4, variables included: 700 MiB" in lines[1]
    assert lines[2].endswith("4.00 GiB may be used: the plan fits")
    small = dataclasses.replace(PROBE, largest_micro_batch=3, xla=None)
    lines = measured_lines(dataclasses.replace(measured, probe=small), plan_of(experiment))
    assert "the plan does NOT fit; LARGEST_MICRO_BATCH = 3" in lines[1]
