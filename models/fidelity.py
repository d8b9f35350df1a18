"""Distances between outputs and targets, as settings for any task with targets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from data import imaging
from data.imaging import similarity
from engine.errors import ConfigurationError, check_at_least
from models import losses
from models.losses import Perceptual

_DISTANCES: Mapping[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "l1": losses.l1,
    "l2": losses.l2,
    "charbonnier": losses.charbonnier,
    "ssim": losses.ssim_loss,
    "ms_ssim": losses.ms_ssim_loss,
    "satd_4x4": functools.partial(losses.satd, size=4),
    "satd_8x8": functools.partial(losses.satd, size=8),
    "dct": losses.weighted_dct,
    "total_variation": lambda fake, real: losses.total_variation(fake),
}
"""Name of its weight -> distance: (output, target), both [B, H, W, C] -> [B]."""

_SMALLEST_SIZE = {
    "ssim": similarity.min_image_size(),
    "ms_ssim": similarity.min_image_size(scales=len(similarity.MS_SSIM_WEIGHTS)),
    "total_variation": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Weights of distances between output and target; 0, the default of all, leaves one out.

    Images are in [-1, 1], and each distance is a mean over pixels and channels; see `models.losses` for the
    papers.

    Attributes:
      l1: absolute difference of pixels.
      l2: squared difference of pixels.
      charbonnier: smooth L1 of pixels.
      ssim: 1 - SSIM; images have at least 11x11 pixels.
      ms_ssim: 1 - MS-SSIM; images have at least 161x161 pixels.
      satd_4x4: Hadamard-transformed differences in blocks of 4x4, which video encoders minimise.
      satd_8x8: the same in blocks of 8x8.
      dct: cosine-transformed differences in blocks of 8x8, weighted by JPEG's quantisation steps.
      total_variation: of the output alone, which smooths it.
      perceptual: distance between activations of `perceptual_network`, which is built only for this.
      perceptual_network: settings of that network.
      domain: colour space of all distances except the perceptual one; one of `imaging.COLOUR_SPACES`.

    Raises:
      ConfigurationError: a setting is unknown or out of its range.
    """

    l1: float = 0.0
    l2: float = 0.0
    charbonnier: float = 0.0
    ssim: float = 0.0
    ms_ssim: float = 0.0
    satd_4x4: float = 0.0
    satd_8x8: float = 0.0
    dct: float = 0.0
    total_variation: float = 0.0
    perceptual: float = 0.0
    perceptual_network: Perceptual = dataclasses.field(default_factory=Perceptual)
    domain: str = "rgb"

    def __post_init__(self) -> None:
        names = (*_DISTANCES, "perceptual")
        check_at_least(0, of="Fidelity", **{name: getattr(self, name) for name in names})
        if self.domain not in imaging.COLOUR_SPACES:
            raise ConfigurationError(
                f"Fidelity.domain = {self.domain!r}: unknown; use one of {', '.join(imaging.COLOUR_SPACES)}"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weights above 0, by name."""
        names = (*_DISTANCES, "perceptual")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def takes_rgb(self) -> bool:
        """Whether a distance is defined only for images in RGB."""
        return self.domain != "rgb" or self.perceptual > 0

    def frozen_networks(self, target: tf.TensorSpec) -> dict[str, keras.Model]:
        """Checks the settings against the targets, and builds the network of the perceptual distance.

        Return it from `Task.frozen_networks`.

        Args:
          target: shape of one target, [H, W, C].

        Returns:
          "perceptual", if that distance has a weight.

        Raises:
          ConfigurationError: a distance cannot compare images of that size or number of channels.
        """
        height, width, channels = target.shape
        for name in self.weights:
            smallest = _SMALLEST_SIZE.get(name, 1)
            if min(height, width) < smallest:
                raise ConfigurationError(
                    f"Fidelity.{name} = {getattr(self, name)}: needs images of at least "
                    f"{smallest}x{smallest} pixels, these have {height}x{width}; raise CROP_SIZE, or set it "
                    "to 0"
                )
        if self.domain != "rgb" and channels != 3:
            raise ConfigurationError(
                f"Fidelity.domain = {self.domain!r}: needs 3 channels, but targets have {channels}; use "
                "'rgb', which compares them as they are"
            )
        if not self.perceptual:
            return {}
        if channels not in (1, 3):
            raise ConfigurationError(
                f"Fidelity.perceptual = {self.perceptual}: needs images of 1 channel or 3, but targets have "
                f"{channels}; set it to 0"
            )
        return {"perceptual": self.perceptual_network.build(height=height, width=width)}

    def terms(
        self,
        fake: tf.Tensor,
        real: tf.Tensor,
        frozen_networks: Mapping[str, keras.Model] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the distances with a weight above 0, multiplied by it.

        Args:
          fake: outputs, [B, H, W, C] in [-1, 1].
          real: targets, of the same shape and range.
          frozen_networks: `Step.frozen_networks`; only the perceptual distance needs them.

        Returns:
          The terms by name, each [B].
        """
        converted = [losses.to_colour_space(images, self.domain) for images in (fake, real)]
        terms = {}
        for name, weight in self.weights.items():
            if name == "perceptual":
                network = (frozen_networks or {})[name]
                distance = self.perceptual_network.distance(network, fake, real)
            else:
                distance = _DISTANCES[name](*converted)
            terms[name] = weight * distance
        return terms
