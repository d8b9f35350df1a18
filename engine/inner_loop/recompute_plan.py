"""Where to cut a network into segments whose activations are recomputed in the backward pass.

Training keeps the outputs of every layer for the backward pass. With recomputation (Chen et al., "Training
Deep Nets with Sublinear Memory Cost", arXiv 1604.06174) only the tensors that cross a cut are kept; the
backward pass computes the rest of a segment again, one segment at a time. The peak is then about

    size of the tensors that cross a cut + size of the largest segment

which is least, for a plain chain of n equal layers, with about sqrt(n) segments. Skip connections cross every
cut between their ends, so for other graphs dynamic programming finds the cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class LayerCall(NamedTuple):
    """One call of a layer, or of another operation, in a functional model.

    Attributes:
      node: of Keras's graph; has the layer and its arguments.
      inputs: (id of Keras's symbolic tensor, number of the tensor in the graph) of each input tensor.
      outputs: numbers of its output tensors.
    """

    node: Any
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]

    def arguments(self, values: dict[int, Any], training: bool | None) -> tuple[tuple, dict[str, Any]]:
        """Positional and keyword arguments of the call, from the values of the tensors by number."""
        args, kwargs = self.node.arguments.fill_in({symbol: values[number] for symbol, number in self.inputs})
        # As in Keras's own walk over the graph.
        if training is not None and "training" in getattr(self.node.operation, "_call_context_args", ()):
            kwargs["training"] = training
        return args, kwargs


class LayerGraph(NamedTuple):
    """A functional model as a list of calls, in the order in which Keras makes them.

    Attributes:
      calls: those of functional models inside it are listed one by one too.
      inputs: numbers of the model's input tensors.
      outputs: numbers of its output tensors.
    """

    calls: tuple[LayerCall, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Segment(NamedTuple):
    """Consecutive calls of a graph.

    Attributes:
      calls: of the graph.
      inputs: numbers of the tensors that it takes from earlier segments or from the model's inputs.
      outputs: numbers of its tensors that later segments take, or that are outputs of the model.
    """

    calls: tuple[LayerCall, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables of its layers, with the seeds of random layers; each once."""
        layers = [call.node.operation for call in self.calls]
        found = [v for layer in layers if isinstance(layer, keras.Layer) for v in layer.variables]
        return list({id(variable): variable for variable in found}.values())


def is_functional(model: object) -> bool:
    """Whether the calls of its layers are known: whether it was made as `keras.Model(inputs, outputs)`."""
    return type(model).__name__ == "Functional" and hasattr(model, "_nodes_by_depth")


def layer_graph(model: keras.Model) -> LayerGraph:
    """Lists the calls of a functional model."""
    calls: list[LayerCall] = []
    numbers = {id(symbol): number for number, symbol in enumerate(model.inputs)}
    inputs = tuple(numbers[id(symbol)] for symbol in model.inputs)
    _add_calls(model, numbers, calls, first_number=len(inputs))
    return LayerGraph(tuple(calls), inputs, tuple(numbers[id(symbol)] for symbol in model.outputs))


def _add_calls(
    model: keras.Model, numbers: dict[int, int], calls: list[LayerCall], *, first_number: int
) -> int:
    """Adds the calls of a model, and the numbers of its tensors; returns the next free number."""
    number = first_number
    # Keras has no public list of the calls in order.
    nodes_by_depth = model._nodes_by_depth  # noqa: SLF001
    for depth in sorted(nodes_by_depth, reverse=True):
        for node in nodes_by_depth[depth]:
            if node.is_input or not node.operation:
                continue
            inputs = tuple((id(symbol), numbers[id(symbol)]) for symbol in node.input_tensors)
            if is_functional(node.operation):
                inner = dict(zip(map(id, node.operation.inputs), (n for _, n in inputs), strict=True))
                number = _add_calls(node.operation, inner, calls, first_number=number)
                outputs = [inner[id(symbol)] for symbol in node.operation.outputs]
            else:
                outputs = list(range(number, number + len(node.outputs)))
                number += len(outputs)
                calls.append(LayerCall(node, inputs, tuple(outputs)))
            numbers |= zip(map(id, node.outputs), outputs, strict=True)
    return number


def plan_segments(graph: LayerGraph, inputs: Sequence[tf.Tensor]) -> list[Segment]:
    """Cuts a graph where that is expected to need the least memory.

    Args:
      graph: of a model.
      inputs: of the model; only their static shapes count, and an unknown number of examples is taken as 1.
    """
    sizes = _output_bytes(graph, inputs)
    last_uses = _last_uses(graph)
    cuts = choose_cuts(sizes, last_uses)
    segments = []
    for start, end in zip([0, *cuts], [*cuts, len(sizes)], strict=True):
        calls = graph.calls[start:end]
        made = [number for call in calls for number in call.outputs]
        taken = dict.fromkeys(number for call in calls for _, number in call.inputs if number not in made)
        later = {number for call in graph.calls[end:] for _, number in call.inputs} | set(graph.outputs)
        segments.append(Segment(calls, tuple(taken), tuple(number for number in made if number in later)))
    return segments


def choose_cuts(sizes: Sequence[float], last_uses: Sequence[int]) -> list[int]:
    """Chooses the cuts with the least sum of the tensors that cross a cut and the largest segment.

    Args:
      sizes: of the outputs of each call.
      last_uses: the last call that takes an output of each call; the call itself if none does.

    Returns:
      The calls that segments after the first start with, rising; empty if no cut saves memory.
    """
    best_peak, best_cuts = math.inf, []
    for parts in range(1, 2 * math.isqrt(len(sizes)) + 2):
        cuts, crossing = _cheapest_cuts(sizes, last_uses, largest=max(sum(sizes) / parts, *sizes, 0))
        ends = zip([0, *cuts], [*cuts, len(sizes)], strict=True)
        peak = crossing + max(sum(sizes[start:end]) for start, end in ends)
        if peak < best_peak:
            best_peak, best_cuts = peak, cuts
    return best_cuts


def _cheapest_cuts(
    sizes: Sequence[float], last_uses: Sequence[int], *, largest: float
) -> tuple[list[int], float]:
    """The cuts into segments up to the size `largest` that the least tensors cross, and the size of these."""
    count = len(sizes)
    size, last = np.asarray(sizes, float), np.asarray(last_uses)
    sums = np.concatenate([[0.0], np.cumsum(size)])
    cost, previous = np.zeros(count + 1), np.zeros(count + 1, int)
    for end in range(1, count + 1):
        # A tensor that crosses several cuts is kept once: at the first cut after its call.
        crosses = np.concatenate([[0.0], np.cumsum(size[:end] * (last[:end] >= end))])
        # Segments may start from here on; up to rounding, so that the whole is one segment of its own size.
        first = int(np.searchsorted(sums, sums[end] - largest * (1 + 1e-9)))
        first = min(first, end - 1)
        costs = cost[first:end] + crosses[end] - crosses[first:end]
        previous[end] = first + int(np.argmin(costs))
        cost[end] = costs.min()
    cuts, end = [], count
    while previous[end] > 0:
        end = int(previous[end])
        cuts.append(end)
    return cuts[::-1], float(cost[count])


def _output_bytes(graph: LayerGraph, inputs: Sequence[tf.Tensor]) -> list[float]:
    """Bytes of the outputs of each call, for one example where the number of examples is unknown."""
    values: dict[int, Any] = {
        number: keras.KerasTensor([1 if size is None else size for size in x.shape], x.dtype.name)
        for number, x in zip(graph.inputs, inputs, strict=True)
    }
    sizes = []
    for call in graph.calls:
        args, kwargs = call.arguments(values, None)
        outputs = keras.tree.flatten(call.node.operation.compute_output_spec(*args, **kwargs))
        values |= zip(call.outputs, outputs, strict=True)
        sizes.append(float(sum(math.prod(x.shape) * tf.as_dtype(x.dtype).size for x in outputs)))
    return sizes


def _last_uses(graph: LayerGraph) -> list[int]:
    """The last call that takes an output of each call; the call itself if none does."""
    # An output of the model is kept whether it crosses a cut or not.
    last = {number: index for index, call in enumerate(graph.calls) for _, number in call.inputs}
    return [
        max([index, *(last.get(number, index) for number in call.outputs)])
        for index, call in enumerate(graph.calls)
    ]
