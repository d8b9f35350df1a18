"""Networks whose activations are computed again in the backward pass instead of being kept (RECOMPUTE).

A segment of a network (see `engine.inner_loop.recompute_plan`) is a pure function: the values of its
variables are read before it and given to it, and what its layers assign (moving statistics, spectral vectors,
seeds) is assigned after it, once. So the second computation has the weights, statistics and seeds of the
first, even if a phase has updated them since, and moves nothing. The sums over replicas of the first
computation are kept, so the second one has no all-reduce of its own.

`tf.recompute_grad` has none of this, and refuses second derivatives, which gradient penalties need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from engine.inner_loop.recompute_plan import LayerGraph, Segment, is_functional, layer_graph, plan_segments
from engine.replica_context import (
    batches_in_pass,
    example_weights,
    keep_sums,
    reuse_sums,
    set_batches_in_pass,
    set_example_weights,
)


class RecomputedNetwork:
    """A network that keeps only the tensors between its segments for the backward pass.

    Everything but a call is that of the network itself. Only functional models can be cut into segments;
    others are computed as they are.

    Args:
      network: whose calls are recomputed.
    """

    def __init__(self, network: keras.Model):
        self._network = network
        self._graph: LayerGraph | None = layer_graph(network) if is_functional(network) else None
        self._segments: dict[Any, list[Segment]] = {}  # by the shapes of the inputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns what the network returns."""
        if self._graph is None:
            return self._network(inputs, training=training)
        values: dict[int, tf.Tensor] = {}
        flat = [
            tf.cast(x, symbol.dtype)
            for x, symbol in zip(keras.tree.flatten(inputs), self._network.inputs, strict=True)
        ]
        values |= zip(self._graph.inputs, flat, strict=True)
        shapes = tuple(tuple(x.shape) for x in flat)
        if shapes not in self._segments:
            self._segments[shapes] = plan_segments(self._graph, flat)
        for segment in self._segments[shapes]:
            outputs = _run_segment(segment, [values[number] for number in segment.inputs], training)
            values |= zip(segment.outputs, outputs, strict=True)
        outputs = [values[number] for number in self._graph.outputs]
        outputs = keras.tree.pack_sequence_as(self._network._outputs_struct, outputs)  # noqa: SLF001
        # Keras returns the only output of a model without a list.
        return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs

    def like(self, model: keras.Model) -> RecomputedNetwork:
        """Another model of layers of this network, also recomputed."""
        return RecomputedNetwork(model)


def _run_segment(segment: Segment, inputs: Sequence[tf.Tensor], training: bool | None) -> list[tf.Tensor]:
    """The outputs of a segment; what its layers assign is assigned."""
    variables = segment.variables
    rows, batches = example_weights(), batches_in_pass()
    given = [*inputs, *(tf.convert_to_tensor(variable.value) for variable in variables)]
    is_weight = [False] * len(inputs) + [variable.trainable for variable in variables]
    is_variable = [False] * len(inputs) + [True] * len(variables)

    def compute(given: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], list[tuple[keras.Variable, tf.Tensor]]]:
        """The outputs, and the new values of variables."""
        values: dict[int, Any] = dict(zip(segment.inputs, given, strict=False))
        state = list(zip(variables, given[len(inputs) :], strict=True))
        with keras.StatelessScope(state, initialize_variables=False) as scope:
            before = [scope.get_current_value(variable) for variable in variables]
            for call in segment.calls:
                args, kwargs = call.arguments(values, training)
                outputs = keras.tree.flatten(call.node.operation(*args, **kwargs))
                values |= zip(call.outputs, outputs, strict=True)
            after = [scope.get_current_value(variable) for variable in variables]
        moved = [(v, new) for v, old, new in zip(variables, before, after, strict=True) if new is not old]
        return [values[number] for number in segment.outputs], moved

    @tf.custom_gradient
    def run(*given: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor | None]]]:
        with keep_sums() as sums:
            outputs, moved = compute(given)
        for variable, value in moved:
            variable.assign(value)

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
            zero = _zero_after(upstream)
            # Weights are not copied: what depends on them alone is kept rather than computed again.
            again = [
                x if of_variable and x.dtype.is_floating else x + tf.cast(zero, x.dtype)
                for x, of_variable in zip(given, is_variable, strict=True)
            ]
            sources = {
                index: x
                for index, x in enumerate(again)
                if x.dtype.is_floating and (is_weight[index] or not is_variable[index])
            }
            with tf.GradientTape() as tape:
                tape.watch(sources)
                with set_example_weights(rows), set_batches_in_pass(batches), reuse_sums(sums):
                    outputs, _ = compute(again)
            gradients = tape.gradient(outputs, sources, output_gradients=list(upstream))
            return [gradients.get(index) for index in range(len(given))]

        return outputs, gradient

    return run(*given)


def _zero_after(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """0 (float32), known only once all the tensors are.

    What is added to it cannot be computed earlier, nor be taken for an equal computation of the forward pass:
    TensorFlow's graph optimizers and XLA would merge the two, and keep the result from one to the other.
    """
    samples = [tf.cast(tf.reshape(x, [-1])[:1], tf.float32) for x in tensors]
    values = tf.concat(samples, 0)  # at most one number of each tensor
    # No number is both, but no optimizer knows that.
    return tf.reduce_sum(tf.cast(tf.math.is_inf(values) & tf.math.is_finite(values), tf.float32))
