"""The programs of a GPU, seen without one: what a step does on each replica is counted from its HLO.

A number that changes is a change of every GPU's step. If it is meant, write the table anew:
python -m tests.helpers.step_counts
"""

import functools
import json

import pytest
import tensorflow as tf

from engine.graphs.flop import flop_of_graph
from tests.helpers.hlo_counts import counts, flop_of_convolution, needed_instructions, what_stops_a_gpu
from tests.helpers.lowering import hlo_here
from tests.helpers.step_counts import CASES, TABLE, numbers_of, operations, program_of

HOST_OPERATIONS = {
    *("Assert", "Print", "PrintV2", "PyFunc", "PyFuncStateless", "EagerPyFunc", "StringFormat"),
    *("Where", "Unique", "UniqueV2", "DynamicPartition", "NonMaxSuppressionV3"),  # shapes from values
}
"""Operations without XLA for which a GPU's host waits."""


@functools.cache
def lowered(case):
    program = program_of(case)
    return program, hlo_here(program)


@pytest.mark.parametrize("case", CASES)
def test_a_step_does_what_the_table_says(case):
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert list(table) == list(CASES)
    assert numbers_of(*lowered(case)) == table[case]


@pytest.mark.parametrize("case", CASES)
def test_a_step_does_not_wait_for_its_host(case):
    program, hlo = lowered(case)
    assert not what_stops_a_gpu(hlo)
    assert not {each.type for each in operations(program.graph)} & HOST_OPERATIONS


@pytest.mark.parametrize("case", CASES)
def test_most_of_what_the_graph_counts_is_in_the_hlo(case):
    program, hlo = lowered(case)
    found = sum(number for name, number in counts(hlo).items() if name.endswith("FLOP"))
    # The count of the graph has the products with padding too, and those of matrices.
    assert 0.7 * flop_of_graph(program.graph, batch=2) < found <= flop_of_graph(program.graph, batch=2)


def test_each_gradient_and_each_loss_is_reduced_once_in_float32():
    # CUT has instance norm: nothing else is reduced.
    program, hlo = lowered("cut")
    numbers = counts(hlo)
    updated = [each for each in operations(program.graph) if each.type == "ResourceApplyAdam"]
    parameters = sum(each.inputs[-1].shape.num_elements() for each in updated)
    assert len(updated) > 50
    losses = numbers["all-reduce"] - len(updated)
    assert 2 <= losses <= 6
    assert numbers["all-reduce bytes"] == 4 * (parameters + losses)


def test_bfloat16_makes_all_but_the_last_convolution_of_a_discriminator():
    single, half = counts(lowered("pix2pix")[1]), counts(lowered("pix2pix, bfloat16")[1])
    of_half = half.pop("convolution bf16 FLOP"), half.pop("convolution f32 FLOP")
    assert sum(of_half) == single.pop("convolution f32 FLOP")
    assert of_half[0] > 0.97 * sum(of_half)
    assert half == single


def lower(function, *specs):
    compiled = tf.function(function, autograph=False, jit_compile=True)
    return hlo_here(compiled.get_concrete_function(*specs))


@pytest.mark.parametrize(
    ("size", "stride", "padding", "products"),
    # 3 weights along each axis. Of 14 results with padding the first and the last have 2 products; of 5
    # results without it each has 3.
    [(14, 1, "SAME", 2 + 12 * 3 + 2), (11, 2, "VALID", 5 * 3)],
)
def test_the_flop_of_a_convolution_and_its_gradients_by_hand(size, stride, padding, products):

    def with_gradients(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = tf.nn.conv2d(x, w, stride, padding)
        return y, tape.gradient(y, [x, w], output_gradients=tf.sin(y))

    hlo = lower(with_gradients, tf.TensorSpec([2, size, size, 4]), tf.TensorSpec([3, 3, 4, 5]))
    found = [flop_of_convolution(i) for i in needed_instructions(hlo) if i.operation == "convolution"]
    assert found == [2 * products**2 * 2 * 4 * 5] * 3


def test_what_no_result_needs_is_not_counted():
    def partly(x):
        tf.linalg.matmul(x, x)
        return tf.cond(x[0, 0] > 0, lambda: tf.transpose(x), lambda: x)

    found = counts(lower(partly, tf.TensorSpec([3, 3])))
    assert found == {"conditional": 1, "transpose": 1, "transpose bytes": 36}


def test_what_stops_a_gpu_is_found():
    def of_values(x):
        return tf.boolean_mask(x, x > 0)

    assert "<=4" in " ".join(what_stops_a_gpu(lower(of_values, tf.TensorSpec([4]))))
    text = "ENTRY %main (a: f32[2]) -> f32[2] {\n  ROOT %r = f32[2]{0} recv(f32[2]{0} %a), channel_id=1\n}"
    assert what_stops_a_gpu(text) == ["f32[2]{0} recv(f32[2]{0} %a), channel_id=1"]
