"""LPIPS: the learned perceptual distance of two images, with weights that the user gives."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from data import imaging
from engine.errors import ConfigurationError
from models.pytorch.state_dict_file import read_state_dict

_SHIFT = (-0.030, -0.088, -0.188)  # of RGB in [-1, 1], as version 0.1 of the reference
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10  # added to the length of a vector


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stage:
    """Convolutions with ReLU; LPIPS compares the last activation of each stage.

    Attributes:
      convolutions: their numbers in torchvision's `features`.
      filters: of each.
      kernel: height and width of their kernels.
      stride: of each.
      padding: zeros on each side.
      pool: window of the max-pooling before them, with stride 2; 0 for none.
    """

    convolutions: tuple[int, ...]
    filters: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0


_BACKBONES = {
    "alex": (
        _Stage(convolutions=(0,), filters=64, kernel=11, stride=4, padding=2),
        _Stage(convolutions=(3,), filters=192, kernel=5, padding=2, pool=3),
        _Stage(convolutions=(6,), filters=384, pool=3),
        _Stage(convolutions=(8,), filters=256),
        _Stage(convolutions=(10,), filters=256),
    ),
    "vgg": (
        _Stage(convolutions=(0, 2), filters=64),
        _Stage(convolutions=(5, 7), filters=128, pool=2),
        _Stage(convolutions=(10, 12, 14), filters=256, pool=2),
        _Stage(convolutions=(17, 19, 21), filters=512, pool=2),
        _Stage(convolutions=(24, 26, 28), filters=512, pool=2),
    ),
}
"""Name in the reference -> stages: AlexNet and VGG16 as torchvision defines them."""

_MIN_IMAGE_SIZES = {"alex": 31, "vgg": 16}

_Convolution = tuple[tf.Tensor, tf.Tensor]
"""Kernel [K, K, in, out] and bias [out]."""


class PerceptualDistance(Protocol):
    """Compares images with their references."""

    def __call__(
        self, images: tf.Tensor, references: tf.Tensor, value_range: tuple[float, float] | None = None
    ) -> tf.Tensor:
        """Computes LPIPS of each image; also in a `tf.function`.

        Args:
          images: [B, H, W, C] with RGB or 1 channel; at least 31x31 pixels for "alex", 16x16 for "vgg".
          references: of the same dtype and shape.
          value_range: of both; None for that of their dtype (uint8, uint16).

        Returns:
          float32 [B], 0 for identical images.

        Raises:
          TypeError: the dtypes differ, or floats come without a range.
          ValueError: the images are too small, or have 2 channels or more than 3.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lpips:
    """Settings of LPIPS, version 0.1.

    Source: Zhang et al., arXiv 1801.03924, equation 1; the authors' code for what the paper leaves open. Of
    the activations of five layers, scaled to length 1 at each pixel, squared differences are weighted by
    channel, averaged over the image, and added up over the layers.

    Attributes:
      network: "alex" or "vgg", the networks of the paper that are used most.
      weights: paths of files (.pth or .npz) that together hold all weights, by the names of PyTorch. Either
        two files: torchvision's classifier (`features.0.weight`, ...) and the linear layers that LPIPS
        publishes (`lin0.model.1.weight`, ...); or the state dict of a whole `lpips.LPIPS`.

    Raises:
      ConfigurationError: the network is unknown, or there are no files.
    """

    network: str = "alex"
    weights: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.network not in _BACKBONES:
            raise ConfigurationError(
                f"Lpips.network = {self.network!r}: unknown; use one of {', '.join(_BACKBONES)}"
            )
        if isinstance(self.weights, str) or not self.weights:
            raise ConfigurationError(
                f"Lpips.weights = {self.weights!r}: must be paths of files, such as ('alexnet.pth', "
                "'lpips_alex.pth'); correct it"
            )

    def build(self) -> PerceptualDistance:
        """Reads the weights.

        Raises:
          ConfigurationError: a file cannot be read, or a tensor is missing or does not fit.
        """
        tensors: dict[str, np.ndarray] = {}
        for path in self.weights:
            tensors |= _read(path)
        stages = _BACKBONES[self.network]
        kernels, linear = self._convolutions(tensors), self._linear(tensors)

        def distance(
            images: tf.Tensor, references: tf.Tensor, value_range: tuple[float, float] | None = None
        ) -> tf.Tensor:
            x, y, known = imaging.pair_in_float64(images, references, value_range, what="LPIPS")
            smallest = _MIN_IMAGE_SIZES[self.network]
            if min(x.shape[1:3]) < smallest:
                raise ValueError(
                    f"LPIPS ({self.network}): needs images of at least {smallest} x {smallest} pixels, not "
                    f"{x.shape[1]} x {x.shape[2]}; raise their size"
                )
            both = tf.concat([x, y], axis=0)
            both = (imaging.to_signed_rgb(both, known, what="LPIPS") - _SHIFT) / _SCALE
            total = tf.constant(0.0)
            for stage, convolutions, weights in zip(stages, kernels, linear, strict=True):
                both = _activations(both, stage, convolutions)
                a, b = tf.split(_unit_length(both), 2)
                weighted = tf.reduce_sum(tf.math.squared_difference(a, b) * weights, axis=3)
                total += tf.reduce_mean(weighted, axis=[1, 2])  # [B]
            return total

        return distance

    def _convolutions(self, tensors: Mapping[str, np.ndarray]) -> list[list[_Convolution]]:
        """The convolutions of each stage."""
        channels = 3
        found: list[list[_Convolution]] = []
        for number, stage in enumerate(_BACKBONES[self.network], start=1):
            found.append([])
            for k in stage.convolutions:
                names = [f"features.{k}", f"net.slice{number}.{k}"]
                shape = (stage.filters, channels, stage.kernel, stage.kernel)
                kernel = self._tensor(tensors, [f"{name}.weight" for name in names], shape)
                bias = self._tensor(tensors, [f"{name}.bias" for name in names], (stage.filters,))
                found[-1].append((tf.constant(kernel.transpose(2, 3, 1, 0)), tf.constant(bias)))
                channels = stage.filters
        return found

    def _linear(self, tensors: Mapping[str, np.ndarray]) -> list[tf.Tensor]:
        """The weight of each channel, [C] for each stage."""
        return [
            tf.constant(
                self._tensor(tensors, [f"lin{k}.model.1.weight"], (1, stage.filters, 1, 1)).reshape(-1)
            )
            for k, stage in enumerate(_BACKBONES[self.network])
        ]

    def _tensor(
        self, tensors: Mapping[str, np.ndarray], names: list[str], shape: tuple[int, ...]
    ) -> np.ndarray:
        """float32 tensor of one of these names and of this shape."""
        for name in names:
            if name in tensors:
                if tensors[name].shape != shape:
                    raise ConfigurationError(
                        f"Lpips.weights: {name} has the shape {tensors[name].shape}, not {shape}; give files "
                        f"of weights for network = {self.network!r}"
                    )
                return tensors[name].astype(np.float32)
        raise ConfigurationError(
            f"Lpips.weights: no file has {' or '.join(names)}; give the files of torchvision's classifier "
            f"and of LPIPS's linear layers for network = {self.network!r}"
        )


def _activations(x: tf.Tensor, stage: _Stage, convolutions: list[_Convolution]) -> tf.Tensor:
    if stage.pool:
        x = tf.nn.max_pool2d(x, stage.pool, 2, "VALID")
    pad = [stage.padding] * 2
    for kernel, bias in convolutions:
        x = tf.nn.conv2d(x, kernel, stage.stride, [[0, 0], pad, pad, [0, 0]])
        x = tf.nn.relu(x + bias)
    return x


def _unit_length(x: tf.Tensor) -> tf.Tensor:
    """Scales the vector of each pixel to length 1."""
    return x / (tf.sqrt(tf.reduce_sum(tf.square(x), axis=3, keepdims=True)) + _EPSILON)


def _read(path: str) -> dict[str, np.ndarray]:
    """The tensors of a file by name."""
    if not path.endswith(".npz"):
        return read_state_dict(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as arrays:
            return dict(arrays)
    except (tf.errors.OpError, OSError, ValueError, EOFError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise ConfigurationError(
            f"{path}: cannot be read ({reason}); give a file of numpy.savez or torch.save"
        ) from error
