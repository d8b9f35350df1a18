"""Batches of unpaired images of two domains: what CycleGAN and its kin train on."""

import dataclasses
from typing import ClassVar

from data.errors import DataError
from data.pairs import DIRECTIONS
from data.pipeline.example_stream import ImageSource
from data.pipeline.image_dataset import ImageDataset

_DOMAINS = ("A", "B")
_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedImages(ImageDataset):
    """Images of two domains, drawn, cut and augmented apart from each other.

    The data set has splits trainA, trainB, testA, testB (and valA, valB) of one image feature, as
    `data.prepare --layout=unpaired` and TFDS's cycle_gan sets do. Example k of the run pairs example k of
    A's order with example k of B's, which is shuffled by a seed of its own; the smaller domain begins its
    next epoch when it is through, and an epoch is one of the larger. "id" is that of the input.

    Attributes, beside those of `ImageDataset`:
        direction: "AtoB" gives A as "input" and B as "target", "BtoA" the other way round.
    """

    direction: str = "AtoB"

    is_paired: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'.")

    @property
    def _domains(self):
        return _DOMAINS if self.direction == "AtoB" else _DOMAINS[::-1]

    def _split_names(self, opened):
        names = {split: tuple(split + domain for domain in self._domains) for split in _SPLITS}
        return {split: both for split, both in names.items() if set(both) <= opened.splits.keys()}

    def _sides(self, opened):
        channels = opened.image_features
        if len(channels) != 1 or not {"trainA", "trainB"} <= opened.splits.keys():
            raise DataError(
                f"{opened.directory}: holds no unpaired images (its splits are {', '.join(opened.splits)}, "
                f"its features {', '.join(opened.features)}); prepare it with --layout=unpaired."
            )
        [(feature, most)] = channels.items()
        fewer = opened.metadata.get("channels", {})
        return tuple(
            {role: ImageSource(feature=feature, channels=fewer.get(domain, most))}
            for role, domain in zip(("input", "target"), self._domains, strict=True)
        )
