"""The table of networks, against sums by hand."""

import dataclasses

import pytest

from engine.diagnosis.network_table import LayerRow, folded, layer_rows, network_lines
from engine.diagnosis.step_trace import trace_step
from engine.parameter_groups import ParameterGroup
from tests.engine.diagnosis.conftest import plan_of


def test_shapes_parameters_and_operations_of_each_layer(trace):
    rows = {row.name: row for row in layer_rows(trace.state.networks["generator"], trace.whole)}
    # 3 -> 4 channels by 4x4 with stride 2, batch norm, then 4 -> 3 channels by 3x3 at full size.
    assert rows["conv"].output_shape == (None, 16, 16, 4)
    assert rows["conv"].parameters == rows["conv"].trainable_parameters == 4 * 4 * 3 * 4 + 4
    assert rows["conv"].flop == 2 * 16 * 16 * 4 * 4 * 4 * 3
    assert rows["norm"].parameters == 2 * 4  # moving statistics are no parameters
    assert rows["up"].output_shape == (None, 32, 32, 4)
    assert rows["out"].flop == 2 * 32 * 32 * 3 * 3 * 3 * 4
    assert rows["activation"].is_trainable == "-"


def test_frozen_groups_are_parameters_that_are_not_trained(experiment):
    frozen = dataclasses.replace(
        experiment, parameter_groups=[ParameterGroup(pattern="generator/conv/*", frozen=True)]
    )
    trace = trace_step(frozen, plan_of(frozen))
    rows = {row.name: row for row in layer_rows(trace.state.networks["generator"], trace.whole)}
    assert (rows["conv"].parameters, rows["conv"].is_trainable) == (196, "no")
    assert rows["out"].is_trainable == "yes"
    title = next(line for line in network_lines(trace, all_layers=False) if "generator" in line)
    assert title.startswith("Network generator: 315 parameters, of which 119 are trained; ")


def test_a_network_with_recomputation_has_the_same_table(experiment, trace):
    recomputing = dataclasses.replace(experiment, recompute=True)
    other = trace_step(recomputing, plan_of(recomputing))
    assert network_lines(other, all_layers=True) == network_lines(trace, all_layers=True)


def row(name, parameters=1, trainable=1):
    return LayerRow(
        name=name,
        layers=1,
        output_shape=(None, 4, 4, parameters),
        parameters=parameters,
        trainable_parameters=trainable,
        flop=10,
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["down_1", "down_2_conv", "down_2_norm", "up_1_conv"], None),
        (
            [f"up_{n}_{kind}" for n in range(9) for kind in ("conv", "norm", "skip")],
            [f"up_{n}" for n in range(9)],
        ),
        (
            ["stem_conv", *(f"block{n}{letter}_bn" for n in (1, 2) for letter in "abcdefghijklm"), "top_bn"],
            ["stem_conv", "block1", "block2", "top_bn"],
        ),
        (
            [f"block{n}{k}_{i}" for n in (1, 2) for k in "abc" for i in range(5)],
            "block1a block1b block1c block2a block2b block2c".split(),
        ),
    ],
)
def test_long_networks_are_folded_by_block_and_short_ones_are_not(names, expected):
    rows = [row(name) for name in names]
    assert [each.name for each in folded(rows)] == (expected or names)
    assert sum(each.parameters for each in folded(rows)) == len(names)
    assert sum(each.flop for each in folded(rows)) == 10 * len(names)


def test_a_block_of_which_a_part_is_trained():
    rows = [row(f"b1_{n}", parameters=n, trainable=n * (n % 2)) for n in range(1, 26)]
    (block,) = folded(rows)
    assert (block.layers, block.output_shape, block.is_trainable) == (25, (None, 4, 4, 25), "partly")
