"""A network made of Keras's own layers, as far as that is possible; also its form for fast inference."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras

from engine.exporting.batch_norm_folding import foldable_norms, folded_weights
from engine.exporting.portable_layers import PORTABLE_CONVOLUTIONS, PORTABLE_LAYERS, Call, Weights
from models.networks.dropout import Dropout


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortableNetwork:
    """A network outside training, without dropout.

    Attributes:
      model: computes what the network computes.
      foreign: classes of layers that Keras does not have, so that whoever loads the model needs them; empty
        if it loads with Keras alone.
      folded: number of batch norms that were folded into convolutions.
    """

    model: keras.Model
    foreign: tuple[str, ...]
    folded: int


def portable_network(network: keras.Model, *, dtype: str = "float32", fold: bool = False) -> PortableNetwork:
    """Makes each layer of the project from Keras's own layers.

    Args:
      network: its variables are float32.
      dtype: "float32" or "float16", of weights and inner activations; inputs and outputs are float32.
      fold: whether batch norms with moving statistics are folded into the convolutions before them.

    Returns:
      The new network; a layer of a class that is not known stays as it is, and shares its variables.
    """
    if not isinstance(network, keras.models.Model) or not hasattr(network, "operations"):
        return PortableNetwork(model=network, foreign=(_class_name(network),), folded=0)
    conversion = _Conversion(network, dtype=dtype, fold=fold)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype="float32", name=x.name), network.input
    )
    model = keras.models.clone_model(
        network, input_tensors=inputs, clone_function=lambda layer: layer, call_function=conversion.call
    )
    conversion.set_weights()
    foreign = tuple(sorted(conversion.foreign))
    return PortableNetwork(model=model, foreign=foreign, folded=len(conversion.folds))


class _Conversion:
    """Of one network."""

    def __init__(self, network: keras.Model, *, dtype: str, fold: bool):
        self.folds = foldable_norms(network) if fold else {}
        self.foreign: set[str] = set()
        self._dtype = dtype
        self._made: dict[str, Call] = {}
        self._weights: Weights = []
        self._last = {id(tensor) for tensor in network.outputs}
        self._folded_norms = {norm.name for norm in self.folds.values()}

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls what replaces a layer or an operation."""
        if layer.name not in self._made:
            self._made[layer.name] = self._make(layer)
        return self._made[layer.name](*args, **kwargs)

    def set_weights(self) -> None:
        """Sets the weights of the new layers, which are built now."""
        for layer, arrays in self._weights:
            layer.set_weights([array.astype(layer.variable_dtype) for array in arrays])

    def _make(self, layer: Any) -> Call:
        kind = type(layer)
        # In float16 a picture would have 11 bits at most: the last layer has more.
        dtype = (
            "float32" if not isinstance(layer, keras.Layer) or id(layer.output) in self._last else self._dtype
        )
        if isinstance(layer, Dropout | keras.layers.Dropout) or layer.name in self._folded_norms:
            return lambda x, **_: x
        if kind in PORTABLE_CONVOLUTIONS:
            norm = self.folds.get(layer.name)
            arrays = layer.get_weights() if norm is None else folded_weights(layer, norm)
            return PORTABLE_CONVOLUTIONS[kind](layer, self._weights, dtype=dtype, arrays=arrays)
        if kind in PORTABLE_LAYERS:
            return PORTABLE_LAYERS[kind](layer, self._weights, dtype=dtype)
        if not kind.__module__.startswith("keras."):
            self.foreign.add(_class_name(layer))
            return layer
        return self._copy(layer, dtype) if isinstance(layer, keras.Layer) else layer

    def _copy(self, layer: keras.Layer, dtype: str) -> Call:
        """One of Keras's own layers, with the same settings and weights."""
        if isinstance(layer, keras.Model):
            inner = portable_network(layer, dtype=self._dtype, fold=bool(self.folds))
            self.foreign |= set(inner.foreign)
            return functools.partial(inner.model, training=False)
        new = type(layer).from_config({**layer.get_config(), "dtype": dtype})
        self._weights.append((new, layer.get_weights()))
        return new


def _class_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
