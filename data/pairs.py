"""Batches of paired images: what pix2pix and every other supervised translation trains on."""

import dataclasses

from data.errors import DataError
from data.pipeline.example_stream import ImageSource
from data.pipeline.image_dataset import ImageDataset

DIRECTIONS = ("AtoB", "BtoA")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedImages(ImageDataset):
    """Pairs of images: both halves of one, or two features of one example; cut and mirrored alike.

    Attributes, beside those of `ImageDataset`:
        direction: "AtoB" makes A the input and B the target, "BtoA" the other way round.
        sides: names of the features of A and B, for data sets that others have prepared.
    """

    direction: str = "AtoB"
    sides: tuple[str, str] = ("A", "B")

    def __post_init__(self):
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'.")

    def _sides(self, opened):
        channels = opened.image_features
        if "pair" in channels:
            both = [
                ImageSource(feature="pair", half=half, channels=channels["pair"])
                for half in ("left", "right")
            ]
        elif set(self.sides) <= channels.keys():
            both = [ImageSource(feature=name, channels=channels[name]) for name in self.sides]
        else:
            raise DataError(
                f"{opened.directory}: holds no pairs (its features are {', '.join(opened.features)}); "
                "prepare it with --layout=side_by_side or --layout=paired."
            )
        return (dict(zip(("input", "target"), both[:: 1 if self.direction == "AtoB" else -1], strict=True)),)
