"""Folding batch norm with moving statistics into the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from models.networks.layers import Conv, ConvTranspose
from models.networks.norms import BatchNorm


def foldable_norms(network: keras.Model) -> dict[str, BatchNorm]:
    """Finds the convolutions that nothing but a batch norm with moving statistics follows.

    Args:
      network: a functional model.

    Returns:
      Name of the convolution -> the batch norm.
    """
    norms = {
        id(layer.input): layer
        for layer in network.layers
        if isinstance(layer, BatchNorm) and layer.inference_norm == "moving_statistics"
    }
    uses: dict[int, int] = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        for tensor in keras.tree.flatten(layer.input):
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    for tensor in network.outputs:
        uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    return {
        layer.name: norms[id(layer.output)]
        for layer in network.layers
        if isinstance(layer, Conv | ConvTranspose)
        and layer.activation is keras.activations.linear
        and id(layer.output) in norms
        and uses[id(layer.output)] == 1
        and _is_called_once(layer)
        and _is_called_once(norms[id(layer.output)])
    }


def _is_called_once(layer: keras.Layer) -> bool:
    return len(layer._inbound_nodes) == 1  # noqa: SLF001, Keras has no public way to tell


def folded_weights(conv: keras.Layer, norm: BatchNorm) -> Sequence[np.ndarray]:
    """Kernel and bias of a convolution that also does what the batch norm after it does.

    norm(conv(x)) = s (k * x + b - mean) + beta = (s k) * x + s (b - mean) + beta, with
    s = gamma / sqrt(variance + epsilon) for each output.
    """
    kernel, *bias = (np.asarray(array, np.float64) for array in conv.get_weights())
    gamma, beta, mean, variance = (
        np.asarray(x, np.float64) for x in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)  # [outputs]
    # [h, w, inputs, outputs]; of a transposed convolution, [h, w, outputs, inputs].
    by_output = scale[:, np.newaxis] if isinstance(conv, ConvTranspose) else scale
    return [kernel * by_output, scale * ((bias[0] if bias else 0.0) - mean) + beta]
