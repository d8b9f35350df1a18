"""Batches of unpaired images of two domains, for CycleGAN and similar models."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from data.errors import DataError
from data.pairs import DIRECTIONS
from data.pipeline.example_decoder import ImageSource
from data.pipeline.image_dataset import ImageDataset
from data.roles import INPUT, TARGET
from data.tfrecords.prepared_dataset import PreparedDataset

_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedImages(ImageDataset):
    """Images of two domains, drawn, cropped and augmented independently of each other.

    The data set has splits trainA, trainB, testA, testB (and optionally valA, valB) of one image feature, as
    `data.prepare --layout=unpaired` and TFDS's cycle_gan sets have. Example k of the run joins example k of
    A's order and example k of B's, which is shuffled with another seed. An epoch is one of the larger domain;
    the smaller domain begins its own next epoch whenever it ends. "id" is that of the input.

    The attributes of `ImageDataset` apply too.

    Attributes:
      direction: "AtoB" makes A the input and B the target, "BtoA" the other way round.
    """

    direction: str = "AtoB"

    is_paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'")

    @property
    def _domains(self) -> tuple[str, str]:
        """The domains of input and target."""
        return ("A", "B") if self.direction == "AtoB" else ("B", "A")

    def _split_names(self, opened: PreparedDataset) -> Mapping[str, tuple[str, ...]]:
        names = {split: tuple(split + domain for domain in self._domains) for split in _SPLITS}
        return {split: both for split, both in names.items() if set(both) <= opened.splits.keys()}

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        channels = opened.image_features
        if len(channels) != 1 or not {"trainA", "trainB"} <= opened.splits.keys():
            raise DataError(
                f"{opened.directory}: has no unpaired images (its splits are {', '.join(opened.splits)}, "
                f"its features {', '.join(opened.features)}); prepare it with --layout=unpaired"
            )
        [(feature, feature_channels)] = channels.items()
        of_domain = opened.metadata.get("channels", {})  # of a domain with fewer than the feature
        return tuple(
            {
                role: ImageSource(
                    feature=feature,
                    channels=of_domain.get(domain, feature_channels),
                    classes=opened.labels.get(domain),
                    alpha=opened.has_alpha(feature),
                )
            }
            for role, domain in zip((INPUT, TARGET), self._domains, strict=True)
        )
