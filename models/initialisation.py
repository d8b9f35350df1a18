"""What the kernels of a new run are drawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras

from engine.errors import ConfigurationError
from engine.task import InitialWeights
from models.networks.layers import BatchNorm


def _scaled(scale: float, fan: str) -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(scale, fan, "untruncated_normal")


SCHEMES: dict[str, Callable[[float], keras.initializers.Initializer]] = {
    "normal": lambda gain: keras.initializers.RandomNormal(0.0, gain),
    "xavier": lambda gain: _scaled(gain**2, "fan_avg"),
    "kaiming": lambda gain: _scaled(2.0, "fan_in"),
    "orthogonal": lambda gain: keras.initializers.Orthogonal(gain),
}
"""What the reference knows, given the gain: N(0, gain^2); N(0, gain^2 2 / (fan in + fan out)) (Glorot and
Bengio, 2010); N(0, 2 / fan in), whatever the gain (He et al., arXiv 1502.01852); orthonormal columns or rows
times the gain (Saxe et al., arXiv 1312.6120). A transposed convolution's fans are those of PyTorch, which
takes its outputs for its inputs."""


def initialise(network: keras.Model, *, scheme: str, gain: float = 0.02) -> None:
    """Draws the kernels of a network anew by one of SCHEMES, and batch norm's gammas from N(1, gain^2).

    Kernels that start at 0 stay so.
    """
    for layer in network._flatten_layers():  # Keras has no public walk over nested layers
        # An initializer gives the same values each time it is called: one for each variable.
        if isinstance(layer, BatchNorm):
            layer.gamma.assign(
                keras.initializers.RandomNormal(1.0, gain)(layer.gamma.shape, layer.gamma.dtype)
            )
        elif hasattr(layer, "kernel_initializer") and not isinstance(
            layer.kernel_initializer, keras.initializers.Zeros
        ):
            kernel = layer.kernel
            kernel.assign(SCHEMES[scheme](gain)(kernel.shape, kernel.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initialisation:
    """What a new run starts from: drawn kernels, then weights from elsewhere.

    Args:
      scheme: one of SCHEMES for all networks; None leaves what each task says, "normal" for most.
      gain: the scheme's.
      weights: of networks that do not start from chance, such as `models.torch_weights.TorchWeights`.
    """

    scheme: str | None = None
    gain: float = 0.02
    weights: InitialWeights | None = None

    def __post_init__(self):
        if self.scheme not in (None, *SCHEMES):
            raise ConfigurationError(
                f"Initialisation.scheme = {self.scheme!r}: unknown; use one of {', '.join(SCHEMES)}, or None"
            )
        if not self.gain > 0:
            raise ConfigurationError(f"Initialisation.gain = {self.gain}: must be above 0, such as 0.02")

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        if self.scheme is not None:
            for network in networks.values():
                initialise(network, scheme=self.scheme, gain=self.gain)
        if self.weights is not None:
            self.weights(networks)
