"""Batches of single images: the network learns to undo what the augmentations do to its input."""

import dataclasses

from data.errors import DataError
from data.pipeline.example_stream import ImageSource
from data.pipeline.image_dataset import ImageDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleImages(ImageDataset):
    """Images that are input and target at once.

    Augmentations with on="input" make the pair: degrade the input (noise, blur, JPEG, downscaling, grey)
    and restoration or colourisation is learned from images alone. They belong to the task, so evaluation
    applies them too, to each image always alike. For super-resolution the input is made smaller.

    Attributes, beside those of `ImageDataset`:
        feature: name of the image feature, for data sets with more than one.
        downscale: the input is so many times smaller than the target along each side, at least 1; it is made
            of the cut and augmented image, bicubic and antialiased as Pillow does it.
    """

    feature: str = "image"
    downscale: int = 1

    _augments_evaluation = True

    def __post_init__(self):
        super().__post_init__()
        if self.downscale < 1 or any(side % self.downscale for side in self._framing.crop_size):
            raise DataError(
                f"SingleImages.downscale = {self.downscale}: must be at least 1 and divide CROP_SIZE = "
                f"{self.crop_size}."
            )

    @property
    def _input_downscale(self):
        return self.downscale

    def _sides(self, opened):
        channels = opened.image_features
        if self.feature not in channels:
            raise DataError(
                f"{opened.directory}: has no image feature {self.feature!r} (its features are "
                f"{', '.join(opened.features)}); prepare it with --layout=single."
            )
        side = ImageSource(feature=self.feature, channels=channels[self.feature])
        return ({"input": side, "target": side},)
