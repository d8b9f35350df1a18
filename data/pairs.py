"""Batches of paired images, for pix2pix and all other supervised translation."""

import dataclasses
from collections.abc import Mapping

from data.errors import DataError
from data.pipeline.example_decoder import ImageSource
from data.pipeline.image_dataset import ImageDataset
from data.roles import INPUT, TARGET
from data.tfrecords.prepared_dataset import PreparedDataset

DIRECTIONS = ("AtoB", "BtoA")
COLOURS, ONE_HOT = "colours", "one_hot"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedImages(ImageDataset):
    """Pairs of images: both halves of one image, or two features of one example; both are cropped alike.

    The attributes of `ImageDataset` apply too.

    Attributes:
      direction: "AtoB" makes A the input and B the target, "BtoA" the other way round.
      sides: names of the features of A and B, for data sets that `data.prepare` did not make.
      label_encoding: how networks see an input whose values are classes (`data.prepare --labels`):
        "colours", as it is stored, or "one_hot", with a channel for each class. Targets are as stored.
    """

    direction: str = "AtoB"
    sides: tuple[str, str] = ("A", "B")
    label_encoding: str = COLOURS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise DataError(f"direction = {self.direction!r}: must be 'AtoB' or 'BtoA'")
        if self.label_encoding not in (COLOURS, ONE_HOT):
            raise DataError(
                f"label_encoding = {self.label_encoding!r}: must be {COLOURS!r} or {ONE_HOT!r}; change it"
            )
        if self.label_encoding == ONE_HOT and self.colour_space != "rgb":
            raise DataError(
                f"label_encoding = {ONE_HOT!r}: such inputs have no colours, and colour_space = "
                f"{self.colour_space!r} needs them; set one of the two to its default"
            )

    @property
    def _one_hot_roles(self) -> tuple[str, ...]:
        inputs = (INPUT,) if self.label_encoding == ONE_HOT else ()
        return (*super()._one_hot_roles, *inputs)

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        channels = opened.image_features
        if "pair" in channels:
            a, b = (
                ImageSource(
                    feature="pair",
                    half=half,
                    channels=channels["pair"],
                    classes=opened.labels.get(side),
                    alpha=opened.has_alpha("pair"),
                )
                for half, side in (("left", "A"), ("right", "B"))
            )
        elif set(self.sides) <= channels.keys():
            a, b = (
                ImageSource(
                    feature=name,
                    channels=channels[name],
                    classes=opened.labels.get(name),
                    alpha=opened.has_alpha(name),
                )
                for name in self.sides
            )
        else:
            raise DataError(
                f"{opened.directory}: has no pairs (its features are {', '.join(opened.features)}); "
                "prepare it with --layout=side_by_side or --layout=paired"
            )
        roles = {INPUT: a, TARGET: b} if self.direction == "AtoB" else {INPUT: b, TARGET: a}
        self._check_classes(roles[INPUT], where=opened.directory)
        return (roles,)

    def _check_classes(self, source: ImageSource, *, where: str) -> None:
        """Raises DataError if the input is to be one-hot and has no list of classes."""
        if self.label_encoding != ONE_HOT or source.classes:
            return
        side = "AB" if self.direction == "AtoB" else "BA"
        if source.is_labels:
            reason = "has no list of classes, as its files are JPEG or have too many colours"
            remedy = "prepare it from files with the colours of the classes only"
        else:
            reason, remedy = "is not declared as labels", f"prepare it with --labels={side[0]}"
        raise DataError(
            f"{where}: label_encoding = {ONE_HOT!r}, but the input, {side[0]}, {reason}; {remedy}, or set "
            f"{COLOURS!r}"
        )
