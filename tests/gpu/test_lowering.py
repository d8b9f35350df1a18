"""Every task's step becomes a GPU program, and does there what the table says: TensorFlow's CUDA build."""

import json

import pytest
import tensorflow as tf
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from engine.distribution.precision import set_precision
from tests.helpers.hlo_counts import what_stops_a_gpu
from tests.helpers.lowering import Refused, lower
from tests.helpers.step_counts import CASES, REPLICAS, TABLE, numbers_of, operations, program_of
from tests.helpers.step_programs import programs_of_steps
from tests.helpers.traced_steps import SMALL, task_and_data

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES)
def test_a_step_does_what_the_table_says(case):
    program = program_of(case, platform="GPU")
    hlo = lower(program, "GPU")
    assert not what_stops_a_gpu(hlo)
    assert numbers_of(program, hlo) == json.loads(TABLE.read_text(encoding="utf-8"))[case]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", SMALL)
def test_every_operation_has_a_kernel_for_gpus_and_for_their_xla(name, precision):
    set_precision(precision)
    for program in programs_of_steps(*task_and_data(name), replicas=REPLICAS, platform="GPU"):
        lower(program, "GPU")
        assert without_kernel(program.graph) == []


def without_kernel(graph):
    """The operations of a graph, with the types of their attributes, that TensorFlow runs on the host."""
    missing = set()
    for operation in operations(graph):
        types = {name: value.type for name, value in operation.node_def.attr.items() if value.type}
        kernels = get_registered_kernels_for_op(operation.type).kernel
        on_gpu = [kernel for kernel in kernels if kernel.device_type in ("GPU", "DEFAULT")]
        if kernels and not any(takes(kernel, types) for kernel in on_gpu):
            missing.add((operation.type, str({n: tf.as_dtype(t).name for n, t in types.items()})))
    return sorted(missing)


def takes(kernel, types):
    return all(
        types[constraint.name] in constraint.allowed_values.list.type
        for constraint in kernel.constraint
        if constraint.name in types and constraint.allowed_values.list.type
    )


def test_what_has_no_kernel_is_found():
    @tf.function(autograph=False, jit_compile=True)
    def of_text(x):
        return tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 7)

    program = of_text.get_concrete_function(tf.TensorSpec([2]))
    assert [name for name, _ in without_kernel(program.graph)] == ["AsString", "StringToHashBucketFast"]
    with pytest.raises(Refused, match="AsString"):
        lower(program, "GPU")
