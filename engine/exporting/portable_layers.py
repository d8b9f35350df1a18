"""The layers of the project, made of Keras's own layers and operations that compute the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from data.imaging.bicubic_kernel import cubic_kernel
from models.networks.conditioning import FeatureModulation, TiledConcatenation
from models.networks.edsr import Enlarge, PixelShuffle
from models.networks.layers import Conv, ConvTranspose, ReflectionPadding2D
from models.networks.norms import BatchNorm, InstanceNorm

Weights = list[tuple[keras.Layer, Sequence[np.ndarray]]]
"""New layers with the weights that they get once they are built."""

Call = Callable[..., Any]
"""Maps symbolic tensors to symbolic tensors."""

BICUBIC_RADIUS = 2
"""Of Keys's kernel, in input pixels."""


def portable_conv(layer: Conv, weights: Weights, *, dtype: str, arrays: Sequence[np.ndarray]) -> Call:
    """A convolution with zeros on both sides.

    Args:
      layer: of the project.
      weights: gets the new layer.
      dtype: of the new layer.
      arrays: kernel and, if there is one, bias: those of `layer`, or what batch norm has been folded into.
    """
    [kernel] = {*layer.kernel_size}
    is_same = {*layer.strides} == {1} and kernel == 2 * layer.zeros + 1
    new = keras.layers.Conv2D(
        layer.filters,
        layer.kernel_size,
        layer.strides,
        padding="same" if is_same else "valid",
        dilation_rate=layer.dilation_rate,
        groups=layer.groups,
        activation=layer.activation,
        use_bias=len(arrays) > 1,
        dtype=dtype,
        name=layer.name,
    )
    weights.append((new, arrays))
    if is_same or not layer.zeros:
        return new
    pad = keras.layers.ZeroPadding2D(layer.zeros, dtype=dtype, name=f"{layer.name}_zeros")
    return lambda x: new(pad(x))


def portable_conv_transpose(
    layer: ConvTranspose, weights: Weights, *, dtype: str, arrays: Sequence[np.ndarray]
) -> Call:
    """A transposed convolution that doubles the size; arguments as of `portable_conv`."""
    new = keras.layers.Conv2DTranspose(
        layer.filters,
        layer.kernel_size,
        layer.strides,
        padding=layer.padding,
        activation=layer.activation,
        use_bias=len(arrays) > 1,
        dtype=dtype,
        name=layer.name,
    )
    weights.append((new, arrays))
    if layer.padding == "same":
        return new
    crop = keras.layers.Cropping2D(((1, 0), (1, 0)), dtype=dtype, name=f"{layer.name}_crop")
    return lambda x: crop(new(x))


def portable_batch_norm(layer: BatchNorm, weights: Weights, *, dtype: str) -> Call:
    """Batch norm outside training, with the statistics of each picture or with the moving ones."""
    if layer.inference_norm == "batch_statistics":
        new = keras.layers.GroupNormalization(groups=-1, epsilon=layer.epsilon, dtype=dtype, name=layer.name)
        weights.append((new, [np.asarray(x) for x in (layer.gamma, layer.beta)]))
        return new
    new = keras.layers.BatchNormalization(
        momentum=layer.momentum, epsilon=layer.epsilon, dtype=dtype, name=layer.name
    )
    weights.append((new, layer.get_weights()))
    return new


def portable_instance_norm(layer: InstanceNorm, weights: Weights, *, dtype: str) -> Call:
    """Instance norm: group norm with a group for each channel, without weights."""
    del weights
    return keras.layers.GroupNormalization(
        groups=-1, epsilon=layer.epsilon, center=False, scale=False, dtype=dtype, name=layer.name
    )


def portable_reflection(layer: ReflectionPadding2D, weights: Weights, *, dtype: str) -> Call:
    """Reflection padding, as an operation: Keras has no such layer."""
    del weights, dtype
    widths = ((0, 0), (layer.padding, layer.padding), (layer.padding, layer.padding), (0, 0))
    return lambda x: keras.ops.pad(x, widths, mode="reflect")


def portable_pixel_shuffle(layer: PixelShuffle, weights: Weights, *, dtype: str) -> Call:
    """Channels to pixels, as an operation."""
    del layer, weights, dtype
    return lambda x: keras.ops.depth_to_space(x, 2)


def portable_enlarge(layer: Enlarge, weights: Weights, *, dtype: str) -> Call:
    """Bicubic upsampling by a whole factor, in float32: a transposed convolution, renormalised at the border.

    An input pixel i adds cubic(i - c) of itself to an output pixel o, whose centre in input pixels is
    c = (o + 1/2) / factor - 1/2. That depends on o - factor i only, so it is a transposed convolution. The
    same convolution of ones is the sum of the weights.
    """
    del dtype
    factor = layer.factor
    reach = np.arange(-(BICUBIC_RADIUS + 1) * factor, (BICUBIC_RADIUS + 1) * factor + 1)
    distance = np.abs((reach + 0.5) / factor - 0.5)
    reach, distance = reach[distance < BICUBIC_RADIUS], distance[distance < BICUBIC_RADIUS]
    taps = np.asarray(cubic_kernel(distance), np.float64)
    before = -int(reach[0])
    after = len(taps) - factor - before

    def call(x: keras.KerasTensor) -> keras.KerasTensor:
        channels = x.shape[-1]
        new = keras.layers.Conv2DTranspose(
            channels, len(taps), factor, use_bias=False, dtype="float32", name=layer.name
        )
        crop = keras.layers.Cropping2D((before, after), dtype="float32", name=f"{layer.name}_crop")
        kernel = np.outer(taps, taps)[:, :, np.newaxis, np.newaxis] * np.eye(channels)
        weights.append((new, [kernel]))
        return keras.ops.divide(crop(new(x)), crop(new(keras.ops.ones_like(x))))

    return call


def portable_tiling(layer: TiledConcatenation, weights: Weights, *, dtype: str) -> Call:
    """A vector repeated over an image, as further channels."""
    del weights

    def call(inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        image, vector = inputs
        vector = keras.layers.Reshape((1, 1, vector.shape[-1]), dtype=dtype, name=f"{layer.name}_vector")(
            vector
        )
        # [B, H, W, 1] of zeros says how often the vector is repeated.
        zeros = keras.ops.zeros_like(keras.ops.mean(image, axis=-1, keepdims=True))
        tiled = keras.layers.Add(dtype=dtype, name=f"{layer.name}_tiled")([vector, zeros])  # [B, H, W, K]
        return keras.layers.Concatenate(dtype=dtype, name=layer.name)([image, tiled])

    return call


def portable_modulation(layer: FeatureModulation, weights: Weights, *, dtype: str) -> Call:
    """FiLM: (1 + gamma) x + beta, where gamma and beta are dense layers."""
    kernel, bias = layer.get_weights()  # [U, 2 C], [2 C]
    channels = len(bias) // 2
    parts = {
        "gamma": (kernel[:, :channels], 1 + bias[:channels]),
        "beta": (kernel[:, channels:], bias[channels:]),
    }

    def call(inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        x, hidden = inputs
        affine = {}
        for part, arrays in parts.items():
            name = f"{layer.name}_{part}"
            new = keras.layers.Dense(channels, dtype=dtype, name=name)
            weights.append((new, arrays))
            affine[part] = keras.layers.Reshape((1, 1, channels), dtype=dtype, name=f"{name}_shape")(
                new(hidden)
            )
        scaled = keras.layers.Multiply(dtype=dtype, name=f"{layer.name}_scale")([x, affine["gamma"]])
        return keras.layers.Add(dtype=dtype, name=layer.name)([scaled, affine["beta"]])

    return call


PORTABLE_CONVOLUTIONS: dict[type, Call] = {Conv: portable_conv, ConvTranspose: portable_conv_transpose}
"""Classes of the project into which batch norm can be folded -> what makes the portable layer."""

PORTABLE_LAYERS: dict[type, Call] = {
    BatchNorm: portable_batch_norm,
    InstanceNorm: portable_instance_norm,
    ReflectionPadding2D: portable_reflection,
    PixelShuffle: portable_pixel_shuffle,
    Enlarge: portable_enlarge,
    TiledConcatenation: portable_tiling,
    FeatureModulation: portable_modulation,
}
"""Other classes of the project -> what makes the portable layer."""
