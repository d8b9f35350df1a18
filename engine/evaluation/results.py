"""What an evaluation found: metrics of every image, and their means over the split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """Metrics of one way to make the images of a split.

    Attributes:
      values: one for each image, float64 [N], by name of the metric.
      identical: number of images that equal their target; their PSNR is only its cap.
    """

    values: Mapping[str, np.ndarray]
    identical: int = 0

    @property
    def examples(self) -> int:
        """Number of images."""
        return len(next(iter(self.values.values())))

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over the images."""
        return {name: float(np.mean(values)) for name, values in self.values.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a split. Each is computed for every image by itself, then averaged over the images.

    Attributes:
      examples: images evaluated.
      split: the name under which the run's files hold the evaluation.
      position: of the checkpoint, in examples of the training; None if it is not of a checkpoint.
      names: of the examples, in order; empty if the data has no names.
      value_range: lowest and highest possible value of an image, on which the metrics are.
      translations: of the networks; None for unpaired data.
      baseline_images: of each baseline, by its name; empty for unpaired data.
      reconstruction_images: of each of the task's reconstructions, by its name.
      distances: KID and FID of the translations to the real images, "kid" and "fid"; for tasks that translate
        both ways, also "back_kid" and "back_fid".
      extractor: names the features that they compare.
      mode: says with which weights and in which mode the networks computed; may be empty.
      luma_border: pixels that luma metrics leave out on each side.
    """

    examples: int
    split: str = ""
    position: int | None = None
    names: tuple[str, ...] = ()
    value_range: tuple[float, float] = (0.0, 255.0)
    translations: ImageMetrics | None = None
    baseline_images: Mapping[str, ImageMetrics] = dataclasses.field(default_factory=dict)
    reconstruction_images: Mapping[str, ImageMetrics] = dataclasses.field(default_factory=dict)
    distances: Mapping[str, float] = dataclasses.field(default_factory=dict)
    extractor: str = ""
    mode: str = ""
    luma_border: int = 0

    @property
    def model(self) -> dict[str, float]:
        """Metrics of the translations, by name; empty for unpaired data."""
        return self.translations.means if self.translations else {}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Metrics of each baseline, by its name; empty for unpaired data."""
        return {name: images.means for name, images in self.baseline_images.items()}

    @property
    def reconstructions(self) -> dict[str, dict[str, float]]:
        """Metrics of each of the task's reconstructions, by its name."""
        return {name: images.means for name, images in self.reconstruction_images.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics of the networks; those of a reconstruction begin with its name."""
        means = {name: float(np.mean(values)) for name, values in self.image_values.items()}
        return means | dict(self.distances)

    @property
    def image_values(self) -> dict[str, np.ndarray]:
        """The values behind `metrics`, one for each image; distances are of all images together."""
        values = dict(self.translations.values) if self.translations else {}
        for name, images in self.reconstruction_images.items():
            values |= {f"{name}_{metric}": found for metric, found in images.values.items()}
        return values
