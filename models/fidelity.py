"""What holds an output to its target, as settings any task with targets can take."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

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
"""(output, target) [B, H, W, C] -> [B], by the name of its weight."""

_SMALLEST_SIDE = {
    "ssim": similarity.min_image_size(),
    "ms_ssim": similarity.min_image_size(scales=len(similarity.MS_SSIM_WEIGHTS)),
    "total_variation": 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Weights of distances between output and target; 0 leaves one out, and all are 0 by default.

    Values are in [-1, 1] and every distance is a mean over pixels and channels; see `models.losses` for
    each with its paper.

    Args:
      l1, l2, charbonnier: of pixels.
      ssim, ms_ssim: 1 - SSIM (sides of at least 11 pixels), 1 - MS-SSIM (at least 161).
      satd_4x4, satd_8x8: Hadamard-transformed differences in blocks, as video encoders compare.
      dct: cosine-transformed differences in blocks of 8x8, weighted by JPEG's steps.
      total_variation: of the output alone, which smooths it.
      perceptual: distance between activations of `perceptual_network`, which is made only then.
      perceptual_network: settings of that network.
      domain: colour space in which all but the perceptual distance are taken, one of `losses.DOMAINS`.
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

    def __post_init__(self):
        names = (*_DISTANCES, "perceptual")
        check_at_least(0, of="Fidelity", **{name: getattr(self, name) for name in names})
        if self.domain not in losses.DOMAINS:
            raise ConfigurationError(
                f"Fidelity.domain = {self.domain!r}: unknown; use one of {', '.join(losses.DOMAINS)}"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The weights above 0, by name."""
        names = (*_DISTANCES, "perceptual")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def takes_rgb(self) -> bool:
        """Whether it takes values for red, green and blue, and not just for numbers."""
        return self.domain != "rgb" or self.perceptual > 0

    def build(self, target: tf.TensorSpec) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
        """Checks the settings against targets [H, W, C], and makes the perceptual loss if it is asked for.

        To be called in `Task.networks`, under the strategy's scope; see `Perceptual.build`. What it gives,
        None without that loss, belongs into `terms`.

        Raises:
          ConfigurationError: pictures of that size or number of channels cannot be compared in this way.
        """
        height, width, channels = target.shape
        for name in self.weights:
            smallest = _SMALLEST_SIDE.get(name, 1)
            if min(height, width) < smallest:
                raise ConfigurationError(
                    f"Fidelity.{name} = {getattr(self, name)}: needs pictures of at least {smallest} pixels "
                    f"a side, these are {height}x{width}; raise CROP_SIZE, or set it to 0"
                )
        if self.domain != "rgb" and channels != 3:
            raise ConfigurationError(
                f"Fidelity.domain = {self.domain!r}: is made of 3 channels, but targets have {channels}; "
                "use 'rgb', which takes them as they are"
            )
        if not self.perceptual:
            return None
        if channels not in (1, 3):
            raise ConfigurationError(
                f"Fidelity.perceptual = {self.perceptual}: takes pictures of 1 channel or 3, but targets "
                f"have {channels}; set it to 0"
            )
        return self.perceptual_network.build(height=height, width=width)

    def terms(
        self,
        fake: tf.Tensor,
        real: tf.Tensor,
        *,
        perceptual: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Distances times weights, by name, each [B], of those whose weight is above 0.

        Args:
          fake, real: output and target, [B, H, W, C] in [-1, 1].
          perceptual: what `build` gave.
        """
        terms = {}
        seen = (losses.to_domain(fake, self.domain), losses.to_domain(real, self.domain))
        for name, weight in self.weights.items():
            distance = perceptual(fake, real) if name == "perceptual" else _DISTANCES[name](*seen)
            terms[name] = weight * distance
        return terms
