"""A table of every network: layers, output shapes, parameters, floating-point operations, what is trained."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import keras
import tensorflow as tf

from engine.diagnosis.step_trace import StepTrace
from engine.diagnosis.text_columns import columns
from engine.graphs.flop import flop_of_operation
from engine.graphs.functions import WITHOUT_MEMORY, needed_operations

FOLDED_ROWS = 24
"""The most rows of a network whose layers are folded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A layer, or several that follow each other.

    Attributes:
      name: of the layer, or what the names begin with.
      layers: how many.
      output_shape: [B, H, W, C] of the last one, with None for the batch; None if the step does not use it.
      parameters: all of them.
      trainable_parameters: those that are trained.
      flop: floating-point operations of a forward pass of one example.
    """

    name: str
    layers: int
    output_shape: tuple[int | None, ...] | None
    parameters: int
    trainable_parameters: int
    flop: int

    @property
    def is_trainable(self) -> str:
        """Whether its parameters are trained: "yes", "no", "partly", or "-" if there are none."""
        if not self.parameters:
            return "-"
        if not self.trainable_parameters:
            return "no"
        return "yes" if self.trainable_parameters == self.parameters else "partly"


def network_lines(trace: StepTrace, *, all_layers: bool) -> list[str]:
    """The tables of all networks of a run, as lines of text.

    Args:
      trace: of the step.
      all_layers: one row for each layer; otherwise layers of one block are one row.
    """
    # Recomputation calls layers one by one, so that their operations are not named by network and layer.
    graph = trace.with_recompute(False).whole
    lines = []
    for networks, is_frozen in ((trace.state.networks, False), (trace.state.frozen_networks, True)):
        for name, network in networks.items():
            rows = layer_rows(network, graph, is_frozen=is_frozen)
            lines += [_title(name, rows, is_frozen=is_frozen)]
            lines += _table(rows if all_layers else folded(rows))
    return lines


def layer_rows(network: keras.Model, graph: tf.Graph, *, is_frozen: bool = False) -> list[LayerRow]:
    """One row for each layer with an operation or a parameter.

    Args:
      network: whose layers.
      graph: of a step that calls the network. The first call counts.
      is_frozen: whether nothing of it is trained, whatever its layers say.
    """
    calls = _operations_by_layer(network, graph)
    rows = []
    for layer in network.layers:
        operations = calls.get(layer.name, [])
        if not operations and not layer.weights:
            continue
        trained = [] if is_frozen else layer.trainable_weights
        rows.append(
            LayerRow(
                name=layer.name,
                layers=1,
                output_shape=_output_shape(operations),
                parameters=_count(filter(_is_parameter, layer.weights)),
                trainable_parameters=_count(trained),
                flop=sum(flop_of_operation(operation, batch=1) for operation in operations),
            )
        )
    return rows


def folded(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Joins the rows of a block: as few joins as give at most `FOLDED_ROWS`, or else as many as possible.

    Layers are of one block if their names begin alike, with a number: "up_2_conv" and "up_2_norm", or
    "block1a_dwconv" and "block1a_bn"; if that leaves too many rows, also "block1a_bn" and "block1b_bn".
    """
    patterns = (r".*", r"(.*?\d+[a-z]?)(?=_|$)", r"([a-z_]*?\d+)(?=[a-z]?_|$)")
    for pattern in patterns:
        joined = _joined(rows, pattern)
        if len(joined) <= FOLDED_ROWS:
            break
    return joined


def _joined(rows: Iterable[LayerRow], pattern: str) -> list[LayerRow]:
    blocks: dict[str, list[LayerRow]] = {}
    for row in rows:
        found = re.match(pattern, row.name)
        blocks.setdefault(found[0] if found else row.name, []).append(row)
    return [
        dataclasses.replace(
            block[-1],
            name=name,
            layers=len(block),
            output_shape=next((row.output_shape for row in reversed(block) if row.output_shape), None),
            parameters=sum(row.parameters for row in block),
            trainable_parameters=sum(row.trainable_parameters for row in block),
            flop=sum(row.flop for row in block),
        )
        for name, block in blocks.items()
    ]


def _title(name: str, rows: Sequence[LayerRow], *, is_frozen: bool) -> str:
    parameters, trained = sum(row.parameters for row in rows), sum(row.trainable_parameters for row in rows)
    text = f"Network {name}: {parameters:,} parameters"
    if is_frozen:
        text += ", a constant of the losses"
    elif trained < parameters:
        text += f", of which {trained:,} are trained"
    return f"{text}; {_number(sum(row.flop for row in rows))}FLOP forward for one example"


def _table(rows: Sequence[LayerRow]) -> list[str]:
    cells = [["layers", "", "output shape", "parameters", "FLOP", "trained"]]
    for row in rows:
        shape = "-"
        if row.output_shape is not None:
            shape = " x ".join(str(size) for size in row.output_shape[1:]) or "scalar"
        cells.append(
            [
                row.name,
                str(row.layers) if row.layers > 1 else "",
                shape,
                f"{row.parameters:,}" if row.parameters else "",
                f"{_number(row.flop)}" if row.flop else "",
                row.is_trainable,
            ]
        )
    return [f"  {line}" for line in columns(cells, left=1)]


def _operations_by_layer(network: keras.Model, graph: tf.Graph) -> Mapping[str, list[tf.Operation]]:
    """The operations of the network's first call in a graph, by layer.

    Keras names an operation by its network and layer, with a number behind the name of the network from the
    second call on: "generator_1/down_1_conv_1/Pad".
    """
    names = {layer.name for layer in network.layers}
    calls: dict[str, dict[str, list[tf.Operation]]] = {}
    for operation in needed_operations(graph):
        first, *rest = operation.name.split("/")
        if not rest or (re.sub(r"_\d+$", "", first) != network.name and first != network.name):
            continue
        layer = rest[0] if rest[0] in names else re.sub(r"_\d+$", "", rest[0])
        if layer in names and operation.type not in WITHOUT_MEMORY:
            calls.setdefault(first, collections.defaultdict(list))[layer].append(operation)
    return next(iter(calls.values()), {})


def _output_shape(operations: Sequence[tf.Operation]) -> tuple[int | None, ...] | None:
    """Shape of the last tensor with a batch axis."""
    for operation in reversed(operations):
        for tensor in operation.outputs:
            if tensor.shape.rank and tensor.shape.rank > 1 and tensor.shape[0] is None:
                return tuple(tensor.shape)
    return None


def _is_parameter(weight: keras.Variable) -> bool:
    """Whether gradients could train it: no moving statistic, spectral vector or state of a generator."""
    return weight.name not in _MOVING and tf.as_dtype(weight.dtype).is_floating


_MOVING = frozenset({"moving_mean", "moving_variance", "u"})
"""Names of weights that a forward pass moves."""


def _count(weights: Iterable[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _number(value: float) -> str:
    """With a metric prefix: "12.3 G"."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.0f} "
