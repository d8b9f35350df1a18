"""Batches of single images: the network learns to undo what augmentations do to its input."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from data.errors import DataError
from data.pipeline.example_decoder import ImageSource
from data.pipeline.image_dataset import ImageDataset
from data.roles import INPUT, TARGET
from data.tfrecords.prepared_dataset import PreparedDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleImages(ImageDataset):
    """Images that are both the input and the target.

    Augmentations with on="input" make them differ: with a degraded input (noise, blur, JPEG, downscaling,
    grey), restoration or colourisation is learned from single images. They are part of the task, so
    evaluation applies them too, the same to an image every time. For super-resolution, the input is made
    smaller.

    The attributes of `ImageDataset` apply too.

    Attributes:
      feature: name of the image feature, for data sets with more than one.
      downscale: how many times smaller than the target the input is in height and width, at least 1. The
        cropped and augmented image is resized for it; bicubic and antialiased, as in Pillow (see
        `data.pipeline.resizing.resize_window`).
    """

    feature: str = "image"
    downscale: int = 1

    _augments_evaluation: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.downscale < 1 or any(pixels % self.downscale for pixels in self._resize_and_crop.crop_size):
            raise DataError(
                f"SingleImages.downscale = {self.downscale}: must be at least 1 and divide CROP_SIZE = "
                f"{self.crop_size}"
            )

    @property
    def _input_downscale(self) -> int:
        return self.downscale

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        channels = opened.image_features
        if self.feature not in channels:
            raise DataError(
                f"{opened.directory}: has no image feature {self.feature!r} (its features are "
                f"{', '.join(opened.features)}); prepare it with --layout=single"
            )
        source = ImageSource(
            feature=self.feature,
            channels=channels[self.feature],
            classes=opened.labels.get(self.feature),
            alpha=opened.has_alpha(self.feature),
        )
        return ({INPUT: source, TARGET: source},)
