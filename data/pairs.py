"""Batches of paired images, for pix2pix and all other supervised translation."""

import dataclasses
from collections.abc import Mapping

from data.errors import DataError
from data.pipeline.example_decoder import ImageSource
from data.pipeline.image_dataset import ImageDataset
from data.roles import INPUT, TARGET
from data.tfrecords.prepared_dataset import PreparedDataset

DIRECTIONS = ("AtoB", "BtoA")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedImages(ImageDataset):
    """Pairs of images: both halves of one image, or two features of one example; both are cropped alike.

    The attributes of `ImageDataset` apply too.

    Attributes:
      direction: "AtoB" makes A the input and B the target, "BtoA" the other way round.
      sides: names of the features of A and B, for data sets that `data.prepare` did not make.
    """

    direction: str = "AtoB"
    sides: tuple[str, str] = ("A", "B")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'")

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        channels = opened.image_features
        if "pair" in channels:
            a, b = (
                ImageSource(feature="pair", half=half, channels=channels["pair"])
                for half in ("left", "right")
            )
        elif set(self.sides) <= channels.keys():
            a, b = (ImageSource(feature=name, channels=channels[name]) for name in self.sides)
        else:
            raise DataError(
                f"{opened.directory}: has no pairs (its features are {', '.join(opened.features)}); "
                "prepare it with --layout=side_by_side or --layout=paired"
            )
        return ({INPUT: a, TARGET: b} if self.direction == "AtoB" else {INPUT: b, TARGET: a},)
