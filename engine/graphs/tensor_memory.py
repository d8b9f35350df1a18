"""Estimates how much memory a TensorFlow graph needs for its tensors, by the time that each one lives."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from engine.graphs.functions import WITHOUT_MEMORY, bodies, needed_operations

_VIEWS = frozenset(
    {
        "EnsureShape",
        "ExpandDims",
        "Identity",
        "IdentityN",
        "PreventGradient",
        "Reshape",
        "Squeeze",
        "StopGradient",
    }
)
"""Operations whose outputs are the memory of their inputs."""

_OF_SHAPES = frozenset({"OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"})
"""Operations that need the shape of their input only. They run as soon as it is there."""

_IN_PLACE = frozenset(
    "Abs Add AddN AddV2 BiasAdd Div DivNoNan Elu EluGrad Erf Exp LeakyRelu LeakyReluGrad Log Log1p Maximum "
    "Minimum Mul MulNoNan Neg Pow RealDiv Reciprocal Relu ReluGrad Rsqrt RsqrtGrad SelectV2 Sigmoid "
    "SigmoidGrad Sign Softplus SoftplusGrad Sqrt SqrtGrad Square SquaredDifference Sub Tanh TanhGrad".split()
)
"""Element-wise operations that write over an input that nobody else needs."""


class TensorBytes(NamedTuple):
    """Memory of tensors in bytes.

    Attributes:
      activations: of those with an axis of unknown size, that of the batch.
      others: of all others: gradients of variables, converted weights, scalars.
    """

    activations: int
    others: int

    @property
    def total(self) -> int:
        """Of all."""
        return self.activations + self.others

    def plus(self, other: TensorBytes) -> TensorBytes:
        """The sum."""
        return TensorBytes(self.activations + other.activations, self.others + other.others)

    def minus(self, other: TensorBytes) -> TensorBytes:
        """The difference."""
        return TensorBytes(self.activations - other.activations, self.others - other.others)


NOTHING = TensorBytes(0, 0)


def peak_bytes(graph: tf.Graph, *, batch: int = 1, in_place: bool = True) -> TensorBytes:
    """The most memory that the tensors of a graph take up at once if its operations run in order.

    A tensor lives from the operation that makes it to the last one that takes it. Operations without an
    effect on the result are left out, as TensorFlow does. Arguments and variables do not count, nor does
    temporary memory of a kernel.

    Args:
      graph: of a concrete function. A function that it calls counts with its own peak, of branches the
        largest.
      batch: what unknown sizes count as.
      in_place: whether element-wise operations write over an input that nobody else needs.
    """
    operations = needed_operations(graph)
    lifetimes = _Lifetimes(operations, graph.outputs)
    alive = peak = NOTHING
    for number, operation in enumerate(operations):
        new = NOTHING
        if not _is_view(operation) and operation.type not in WITHOUT_MEMORY:
            for tensor in operation.outputs:
                size = _bytes(tensor, batch)
                if not (in_place and lifetimes.takes_over(tensor, size, number)):
                    lifetimes.begin(tensor, size, number)
                    new = new.plus(size)
        inside = [peak_bytes(body, batch=batch, in_place=in_place) for body in bodies(operation)]
        peak = max(peak, *(alive.plus(each) for each in [new, *inside]), key=_total)
        alive = alive.plus(new).minus(lifetimes.end(operation, number))
    return peak


class _Lifetimes:
    """Which memory each tensor is in, and which operation is the last to take it.

    Args:
      operations: in the order in which they run.
      results: tensors that live to the end.
    """

    def __init__(self, operations: Sequence[tf.Operation], results: Iterable[tf.Tensor]):
        self._owner: dict[object, object] = {}  # of a view: the tensor whose memory it is
        self._last_use: dict[object, int] = collections.defaultdict(int)
        self._alive: dict[object, TensorBytes] = {}
        for number, operation in enumerate(operations):
            if operation.type not in _OF_SHAPES:
                for tensor in operation.inputs:
                    self._last_use[self._memory(tensor)] = number
            if _is_view(operation):
                for viewed, view in zip(operation.inputs, operation.outputs, strict=False):
                    self._owner[view.ref()] = self._memory(viewed)
        for tensor in results:
            self._last_use[self._memory(tensor)] = len(operations)

    def begin(self, tensor: tf.Tensor, size: TensorBytes, number: int) -> None:
        """Operation `number` makes a tensor in memory of its own."""
        self._alive[tensor.ref()] = size
        self._last_use.setdefault(tensor.ref(), number)

    def takes_over(self, tensor: tf.Tensor, size: TensorBytes, number: int) -> bool:
        """Puts a result of operation `number` in the memory of an input that dies there, if there is one."""
        if tensor.op.type not in _IN_PLACE:
            return False
        for given in tensor.op.inputs:
            memory = self._memory(given)
            if self._alive.get(memory) == size and self._last_use[memory] == number:
                self._last_use[memory] = self._last_use.get(tensor.ref(), number)
                self._owner[tensor.ref()] = memory
                return True
        return False

    def end(self, operation: tf.Operation, number: int) -> TensorBytes:
        """The memory that nobody needs after operation `number`."""
        freed = NOTHING
        for tensor in (*operation.inputs, *operation.outputs):
            memory = self._memory(tensor)
            if memory in self._alive and self._last_use[memory] <= number:
                freed = freed.plus(self._alive.pop(memory))
        return freed

    def _memory(self, tensor: tf.Tensor) -> object:
        memory = tensor.ref()
        while memory in self._owner:
            memory = self._owner[memory]
        return memory


def _is_view(operation: tf.Operation) -> bool:
    """Whether the outputs are the memory of the inputs.

    The gradient of an element-wise operation is summed over the axes that the operation broadcast. With an
    unknown batch, TensorFlow does not know that there are none, and that the sum gives its input. A sum that
    is reshaped to a known shape, that of a variable, is another case.
    """
    if operation.type == "Sum" and not _is_known(operation.outputs[0]):
        takers = operation.outputs[0].consumers()
        return not any(
            taker.type == "Reshape" and taker.outputs[0].shape.is_fully_defined() for taker in takers
        )
    return operation.type in _VIEWS


def _is_known(tensor: tf.Tensor) -> bool:
    """Whether at most the first axis, that of the batch, has an unknown size."""
    return tensor.shape.rank is not None and None not in tuple(tensor.shape)[1:]


def _bytes(tensor: tf.Tensor, batch: int) -> TensorBytes:
    if tensor.shape.rank is None or not tensor.dtype.size:
        return NOTHING
    sizes = [batch if size is None else size for size in tensor.shape]
    size = tensor.dtype.size * tf.TensorShape(sizes).num_elements()
    return TensorBytes(0, size) if tensor.shape.is_fully_defined() else TensorBytes(size, 0)


def _total(size: TensorBytes) -> int:
    return size.total
