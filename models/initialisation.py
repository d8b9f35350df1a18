"""Initial weights of a new run: random kernels, or weights of trained networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras

from engine.errors import ConfigurationError
from engine.task import InitialWeights
from models.networks.norms import BatchNorm


def _scaled(scale: float, fan: str) -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(scale, fan, "untruncated_normal")


SCHEMES: dict[str, Callable[[float], keras.initializers.Initializer]] = {
    "normal": lambda gain: keras.initializers.RandomNormal(0.0, gain),
    "xavier": lambda gain: _scaled(gain**2, "fan_avg"),
    "kaiming": lambda gain: _scaled(2.0, "fan_in"),
    "orthogonal": lambda gain: keras.initializers.Orthogonal(gain),
}
"""Scheme of the reference -> (gain -> initializer).

- "normal": N(0, gain^2).
- "xavier": N(0, gain^2 2 / (fan in + fan out)) (Glorot and Bengio, 2010).
- "kaiming": N(0, 2 / fan in), without the gain (He et al., arXiv 1502.01852).
- "orthogonal": orthonormal columns or rows times the gain (Saxe et al., arXiv 1312.6120).

The fans of a transposed convolution are those of PyTorch, which counts its outputs as inputs.
"""


def initialise(network: keras.Model, *, scheme: str, gain: float = 0.02) -> None:
    """Draws new kernels for a network, and the gammas of batch norm from N(1, gain^2).

    Kernels that a layer initialises to 0 stay 0.

    Args:
      network: changed in place.
      scheme: one of SCHEMES.
      gain: of the scheme.
    """
    for layer in network._flatten_layers():  # noqa: SLF001, Keras has no public walk over nested layers
        # An initializer returns the same values at each call, so each variable needs its own.
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
    """Settings of the initial weights: random kernels first, then weights from elsewhere.

    Attributes:
      scheme: one of SCHEMES for all networks; None leaves the choice to the task, which mostly is "normal".
      gain: of the scheme.
      weights: sets weights of trained networks, such as `models.torch_weights.TorchWeights`; None sets none.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    scheme: str | None = None
    gain: float = 0.02
    weights: InitialWeights | None = None

    def __post_init__(self) -> None:
        if self.scheme not in (None, *SCHEMES):
            raise ConfigurationError(
                f"Initialisation.scheme = {self.scheme!r}: unknown; use one of {', '.join(SCHEMES)}, or None"
            )
        if not self.gain > 0:
            raise ConfigurationError(f"Initialisation.gain = {self.gain}: must be above 0, such as 0.02")

    def __call__(self, networks: Mapping[str, keras.Model]) -> None:
        """Initialises the networks of a task.

        Args:
          networks: by name; changed in place.

        Raises:
          ConfigurationError: `weights` do not fit the networks.
        """
        if self.scheme is not None:
            for network in networks.values():
                initialise(network, scheme=self.scheme, gain=self.gain)
        if self.weights is not None:
            self.weights(networks)
