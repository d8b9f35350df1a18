"""What an evaluation found: metrics of every image, and their means over the split."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from engine.evaluation.intervals import Interval, mean_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitEvaluation(abc.ABC):
    """What logs, files and schedules need of an evaluation of a split, of images or of labels.

    Attributes:
      examples: images evaluated.
      split: the name under which the run's files hold the evaluation.
      position: of the checkpoint, in examples of the training; None if it is not of a checkpoint.
      names: of the examples, in order; empty if the data has no names.
      mode: says with which weights and in which mode the networks computed; may be empty.
    """

    examples: int
    split: str = ""
    position: int | None = None
    names: tuple[str, ...] = ()
    mode: str = ""

    @property
    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """All metrics of the networks, by name."""

    @property
    @abc.abstractmethod
    def image_values(self) -> dict[str, np.ndarray]:
        """Those that are means over the images, one value for each image: float64 [N]."""

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """The metrics in one line."""

    @property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of metrics, by name; see `engine.evaluation.intervals`."""
        found = {name: mean_interval(values) for name, values in self.image_values.items()}
        return {name: interval for name, interval in found.items() if interval is not None}

    @property
    def columns(self) -> dict[str, Sequence[float | str]]:
        """Of a table with a row for each image; a column may end before the last image."""
        return {name: values.tolist() for name, values in self.image_values.items()}

    @property
    def scale(self) -> str:
        """What metrics are measured on: those of different scales cannot be compared."""
        return ""

    @property
    def remarks(self) -> dict[str, str]:
        """Further entries of a row of eval.jsonl."""
        return {}


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
class Evaluation(SplitEvaluation):
    """Metrics of the images of a split. Each is computed for every image by itself, then averaged over them.

    The attributes of `SplitEvaluation` apply too.

    Attributes:
      value_range: lowest and highest possible value of an image, on which the metrics are.
      translations: of the networks; None for unpaired data.
      baseline_images: of each baseline, by its name; empty for unpaired data.
      reconstruction_images: of each of the task's reconstructions, by its name.
      distances: KID and FID of the translations to the real images, "kid" and "fid"; for tasks that translate
        both ways, also "back_kid" and "back_fid".
      extractor: names the features that they compare.
      luma_border: pixels that luma metrics leave out on each side.
    """

    value_range: tuple[float, float] = (0.0, 255.0)
    translations: ImageMetrics | None = None
    baseline_images: Mapping[str, ImageMetrics] = dataclasses.field(default_factory=dict)
    reconstruction_images: Mapping[str, ImageMetrics] = dataclasses.field(default_factory=dict)
    distances: Mapping[str, float] = dataclasses.field(default_factory=dict)
    extractor: str = ""
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

    @property
    def summary(self) -> str:
        """PSNR, SSIM and MAE of each way to make images, and the distances."""
        measured = {"": self.model} if self.model else {}
        parts = [
            f"{name} PSNR {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}, MAE {means['mae']:.2f}".strip()
            for name, means in (measured | self.reconstructions).items()
        ]
        # KID comes first where nothing else tells how good a translation is.
        distances = [
            f"{name.replace('_', ' ').upper()} {value:.4g}" for name, value in self.distances.items()
        ]
        parts = [*parts, ", ".join(distances)] if self.model else [", ".join(distances), *parts]
        return "; ".join(filter(None, parts)) or "nothing to compare with"

    @property
    def scale(self) -> str:
        """The value range."""
        low, high = self.value_range
        return f"[{low:g}, {high:g}]"

    @property
    def remarks(self) -> dict[str, str]:
        """The extractor of distances: those of different ones are not comparable."""
        return {"extractor": self.extractor} if self.distances else {}
