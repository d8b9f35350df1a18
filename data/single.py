"""Batches of single images: the network learns to undo what the augmentations do to its input."""

import dataclasses

from data.errors import DataError
from data.image_set import ImageSet, image_features
from data.stream import Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleImages(ImageSet):
    """Images that are input and target at once.

    Augmentations with on="input" make the pair: degrade the input (noise, blur, JPEG, downscaling, grey)
    and restoration, super-resolution or colourisation is learned from images alone. They belong to the
    task, so evaluation applies them too, to each image always alike.

    Attributes, beside those of `ImageSet`:
        feature: name of the image feature, for data sets with more than one.
    """

    feature: str = "image"

    _augments_evaluation = True

    def _sides(self, opened):
        channels = image_features(opened)
        if self.feature not in channels:
            raise DataError(
                f"{opened.directory}: has no image feature {self.feature!r} (its features are "
                f"{', '.join(opened.features)}); prepare it with --layout=single."
            )
        side = Side(feature=self.feature, channels=channels[self.feature])
        return ({"input": side, "target": side},)
