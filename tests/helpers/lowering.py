"""Lowers what a TPU or GPU would be given to HLO, on a machine without one.

TPUStrategy makes one program of each function given to `strategy.run`: every argument becomes a tensor,
variables become values that go in and come out, and the program is compiled for all replicas. The same is
done here. `Recorder` is a strategy that keeps the functions it is asked to run; `lower` turns the variables
of one into arguments and results, as the TPU bridge does, and asks XLA's compiler for the platform for HLO.
`hlo_here` asks that of CPUs, which every build has.

`lower` needs TensorFlow's build for the platform; no device is looked for.
"""

from __future__ import annotations

import re

import tensorflow as tf
from tensorflow.python.distribute import distribute_lib
from tensorflow.python.distribute.one_device_strategy import OneDeviceExtended
from tensorflow.python.eager.polymorphic_function import compiler_ir
from tensorflow.python.framework import op_def_registry
from tensorflow.python.ops.handle_data_util import (
    create_handle_data,
    get_resource_handle_data,
    set_handle_data,
)


class Refused(Exception):
    """XLA's compiler for the platform does not take a program; the message names the operation."""


class Recorder(tf.distribute.Strategy):
    """Traces as TPUStrategy does for so many replicas, and runs nothing.

    Args:
      replicas: how many.
      platform: "TPU", "GPU" or "CPU"; decides by which operation replicas add up, and what layers take the
        replicas for.
      program: makes the programs.

    Attributes:
      programs: the concrete functions that were given to `run`.
    """

    def __init__(self, replicas: int, *, platform: str, program: type[ReplicaProgram] | None = None):
        self.programs = []
        super().__init__((program or ReplicaProgram)(self, replicas, platform))


class ReplicaProgram(OneDeviceExtended):
    """Makes one program for all replicas of each function, and of each all-reduce one operation a tensor."""

    def __init__(self, strategy: Recorder, replicas: int, platform: str):
        super().__init__(strategy, "CPU:0")
        self._replicas = replicas
        self._platform = platform
        self._sums = 0

    @property
    def _num_replicas_in_sync(self):
        return self._replicas

    @property
    def worker_devices(self):
        return (f"/job:localhost/replica:0/task:0/device:{self._platform}:0",)

    def _use_merge_call(self):
        return False

    def _replica_ctx_all_reduce(self, reduce_op, value, options=None):
        assert reduce_op == tf.distribute.ReduceOp.SUM, reduce_op
        return tf.nest.map_structure(self._sum, value)

    def _sum(self, x):
        if self._platform == "TPU":
            return tf.raw_ops.CrossReplicaSum(input=x, group_assignment=[list(range(self._replicas))])
        self._sums += 1
        return tf.raw_ops.CollectiveReduceV2(
            input=x,
            group_size=self._replicas,
            group_key=1,
            instance_key=self._sums,
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
        )

    def _call_for_each_replica(self, fn, args, kwargs):
        strategy = self._container_strategy()
        nothing = [x is None for x in tf.nest.flatten((args, kwargs))]
        # As tpu.replicate does: what cannot be a tensor is an error, and no number stays a Python number.
        tensors = [tf.convert_to_tensor(x) for x in tf.nest.flatten((args, kwargs)) if x is not None]

        def program(replica_id, *tensors):
            given = iter(tensors)
            flat = [None if is_none else next(given) for is_none in nothing]
            own_args, own_kwargs = tf.nest.pack_sequence_as((args, kwargs), flat)
            with distribute_lib.ReplicaContext(strategy, replica_id_in_sync_group=replica_id):
                return fn(*own_args, **own_kwargs)

        program.__name__ = getattr(fn, "__name__", "program").strip("<>")
        tensors = [tf.constant(0), *tensors]
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors]
        concrete = tf.function(program, autograph=False, jit_compile=True).get_concrete_function(*specs)
        strategy.programs.append(concrete)
        return concrete(*tensors)


def lower(program, platform: str) -> str:
    """HLO text of a concrete function for "TPU" or "GPU", before any optimisation.

    Raises:
      Refused: an operation has no kernel there, or a shape is not known when compiling.
    """
    _check_kernels(program, platform)
    specs = [_spec(placeholder) for placeholder in program.graph.inputs]
    return _hlo(tf.function(lifted(program), autograph=False, jit_compile=True), specs, platform)


def hlo_here(program) -> str:
    """HLO text of a concrete function for this machine's CPU, before any optimisation.

    Raises:
      Refused: an operation has no kernel for XLA, or a shape is not known when compiling.
    """
    try:
        return compiler_ir.from_concrete_function(program)(stage="hlo")
    except ValueError as error:
        raise Refused(str(error)) from error


def lifted(program):
    """The concrete function as one of tensors alone, to be traced.

    It takes the values of `program.graph.inputs`, for a variable its own, and gives the results in a list,
    and in another what the variables hold afterwards.
    """
    graph = program.graph

    def of_values(*values):
        env, cells = {}, []
        for placeholder, value in zip(graph.inputs, values, strict=True):
            if placeholder.dtype == tf.resource:
                value = _Cell(value)
                cells.append(value)
            env[placeholder.ref()] = value
        _emit(graph, env)
        results = [env[t.ref()] for t in graph.outputs if not isinstance(env[t.ref()], _Cell)]
        return [tf.identity(t) for t in results], [cell.value for cell in cells]

    return of_values


def _check_kernels(program, platform: str) -> None:
    """That the operations on variables have kernels, since `_emit` puts others in their place.

    Variables cannot be made in a program, but a TensorArray is a resource too, and whether there are kernels
    is asked before anybody looks whose resource it is.
    """
    definition = program.graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    kinds = {}
    for node in nodes:
        if node.op in _ON_VARIABLES:
            attributes = {name: value for name, value in node.attr.items() if not name.startswith("_")}
            kinds[node.op, str(attributes)] = node.op, attributes
    if not kinds:
        return

    @tf.function(autograph=False, jit_compile=True)
    def on_variables():
        for operation, attributes in kinds.values():
            types = {name: tf.as_dtype(value.type) for name, value in attributes.items() if value.type}
            dtype = types.get("dtype", types.get("T"))
            inputs = [
                _resource(dtype or tf.float32)
                if argument.type == tf.resource.as_datatype_enum
                else tf.zeros([], types[argument.type_attr])
                for argument in op_def_registry.get(operation).input_arg
            ]
            outputs = [
                types.get(argument.type_attr) for argument in op_def_registry.get(operation).output_arg
            ]
            tf.compat.v1.get_default_graph().create_op(operation, inputs, outputs, attrs=attributes)
        return tf.constant(0)

    on_variables.get_concrete_function()  # what fails while tracing is no refusal
    try:
        _hlo(on_variables, (), platform)
    except Refused as error:
        if "No registered" in str(error):
            raise


def _resource(dtype) -> tf.Tensor:
    handle = tf.raw_ops.TensorArrayV3(size=1, dtype=dtype).handle
    set_handle_data(handle, create_handle_data(tf.TensorShape(None), dtype))
    return handle


def _spec(placeholder: tf.Tensor) -> tf.TensorSpec:
    shape, dtype = placeholder.shape, placeholder.dtype
    if dtype == tf.resource:
        of_variable = get_resource_handle_data(placeholder).shape_and_type[0]
        shape, dtype = tf.TensorShape(of_variable.shape), tf.as_dtype(of_variable.dtype)
    if not shape.is_fully_defined():
        raise Refused(f"the argument {placeholder.op.name!r} has the shape {shape}, which is not static")
    return tf.TensorSpec(shape, dtype)


def _hlo(function, specs, platform: str) -> str:
    # Without a device experimental_get_compiler_ir takes no variables ("resource arguments"); hence `lifted`.
    try:
        return function.experimental_get_compiler_ir(*specs)(stage="hlo", platform_name=platform)
    except ValueError as error:
        raise Refused(str(error)) from error


class _Cell:
    """A variable while a program is rewritten: whoever reads it gets the last value assigned."""

    def __init__(self, value: tf.Tensor):
        self.value = value


def _emit(graph, env: dict) -> None:
    """Repeats the operations of a graph in the current one; `env` maps its tensors to tensors or cells."""
    for op in graph.get_operations():
        if op.type in ("Placeholder", "NoOp"):
            continue
        inputs = [env[t.ref()] for t in op.inputs]
        if op.type in _ON_VARIABLES:
            outputs = _ON_VARIABLES[op.type](op, *inputs)
        elif op.type in _FUNCTIONAL:
            outputs = _FUNCTIONAL[op.type](op, inputs)
        else:
            if op.type != "Identity" and any(isinstance(x, _Cell) for x in inputs):
                raise Refused(f"{op.name!r} does {op.type} to a variable, of which there is no rule here")
            outputs = inputs if isinstance((inputs or [None])[0], _Cell) else _copy(op, inputs)
        for tensor, value in zip(op.outputs, outputs or (), strict=True):
            env[tensor.ref()] = value


def _copy(op, inputs):
    attributes = {name: value for name, value in op.node_def.attr.items() if not name.startswith("_")}
    here = tf.compat.v1.get_default_graph()
    name = re.sub(r"[^\w.\-/]", "_", op.name).strip("_/")
    return here.create_op(op.type, inputs, [t.dtype for t in op.outputs], name=name, attrs=attributes).outputs


def _assign(change):
    def assign(op, cell, *inputs):
        cell.value = change(op, cell.value, *inputs)

    return assign


def _adam(op, var, m, v, beta1_power, beta2_power, lr, beta1, beta2, epsilon, gradient):
    # The kernel's own registration is checked in `_check_kernels`.
    m.value += (1 - beta1) * (gradient - m.value)
    v.value += (1 - beta2) * (tf.square(gradient) - v.value)
    rate = lr * tf.sqrt(1 - beta2_power) / (1 - beta1_power)
    var.value -= rate * m.value / (tf.sqrt(v.value) + epsilon)


_ON_VARIABLES = {
    "ReadVariableOp": lambda op, cell: [cell.value],
    "VariableShape": lambda op, cell: [tf.shape(cell.value, op.get_attr("out_type"))],
    "ResourceGather": lambda op, cell, indices: [
        tf.gather(cell.value, indices, batch_dims=op.get_attr("batch_dims"))
    ],
    "AssignVariableOp": _assign(lambda op, old, new: new),
    "AssignAddVariableOp": _assign(lambda op, old, new: old + new),
    "AssignSubVariableOp": _assign(lambda op, old, new: old - new),
    "ResourceScatterUpdate": _assign(
        lambda op, old, indices, new: tf.tensor_scatter_nd_update(old, indices[..., tf.newaxis], new)
    ),
    "ResourceApplyAdam": _adam,
}


def _branch(op, name):
    return op.graph._get_function(name).graph


def _call(op, inputs):
    graph = _branch(op, op.get_attr("f").name)
    env = dict(zip((t.ref() for t in graph.inputs), inputs, strict=True))
    _emit(graph, env)
    return [env[t.ref()] for t in graph.outputs]


def _results(graph, inputs, cells, before):
    """Outputs of a branch, then the values it leaves in the cells."""
    for cell, value in zip(cells, before, strict=True):
        cell.value = value
    env = dict(zip((t.ref() for t in graph.inputs), inputs, strict=True))
    _emit(graph, env)
    return [tf.identity(env[t.ref()]) for t in graph.outputs] + [tf.identity(c.value) for c in cells]


def _choose(op, names, select, inputs):
    cells = list(dict.fromkeys(x for x in inputs if isinstance(x, _Cell)))
    before = [cell.value for cell in cells]
    results = select([lambda n=n: _results(_branch(op, n), inputs, cells, before) for n in names])
    return _split(results, cells)


def _split(results, cells):
    outputs = len(results) - len(cells)
    for cell, value in zip(cells, results[outputs:], strict=True):
        cell.value = value
    return results[:outputs]


def _if(op, inputs):
    names = [op.get_attr(f"{name}_branch").name for name in ("then", "else")]
    return _choose(op, names, lambda branches: tf.cond(inputs[0], *branches), inputs[1:])


def _case(op, inputs):
    names = [branch.name for branch in op.get_attr("branches")]
    return _choose(op, names, lambda branches: tf.switch_case(inputs[0], branches), inputs[1:])


def _while(op, inputs):
    graphs = {name: _branch(op, op.get_attr(name).name) for name in ("cond", "body")}
    cells = list(dict.fromkeys(x for x in inputs if isinstance(x, _Cell)))
    places = [n for n, x in enumerate(inputs) if not isinstance(x, _Cell)]
    loop_vars = [inputs[n] for n in places]

    def emitted(name, values):
        """What the loop's condition or body gives for these values of `loop_vars`."""
        now = dict(zip(places, values, strict=True))
        env = {t.ref(): now.get(n, inputs[n]) for n, t in enumerate(graphs[name].inputs)}
        _emit(graphs[name], env)
        return [env[t.ref()] for t in graphs[name].outputs]

    def goes_on(*values):
        return emitted("cond", values[: len(places)])[0]

    def body(*values):
        for cell, value in zip(cells, values[len(places) :], strict=True):
            cell.value = value
        outputs = emitted("body", values[: len(places)])
        return [outputs[n] for n in places] + [cell.value for cell in cells]

    before = [cell.value for cell in cells]
    shapes = [graphs["body"].inputs[n].shape for n in places] + [value.shape for value in before]
    finals = tf.while_loop(goes_on, body, loop_vars + before, shape_invariants=shapes)
    outputs = list(inputs)
    for place, value in zip(places, _split(list(finals), cells), strict=True):
        outputs[place] = value
    return outputs


_FUNCTIONAL = {
    "PartitionedCall": _call,
    "StatefulPartitionedCall": _call,
    "If": _if,
    "StatelessIf": _if,
    "Case": _case,
    "StatelessCase": _case,
    "While": _while,
    "StatelessWhile": _while,
}
