"""The depth at which the images of a role are measured: that of the data set's files."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import tensorflow as tf

from data import imaging
from data.description import DataDescription
from engine.input_pipeline.pictures import HasColourSpace, to_rgb


@dataclasses.dataclass(frozen=True)
class PictureScale:
    """Dtype and range of pictures.

    Metrics of 16-bit pictures would say little once these are rounded to 8 bits.

    Attributes:
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest possible value.
    """

    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)

    @classmethod
    def of(cls, data: Any, role: str) -> Self:
        """That of a role of a data set; 8 bits for data sets without a `description`."""
        description = getattr(data, "description", None)
        stored = description.images.get(role) if isinstance(description, DataDescription) else None
        if stored is None:
            return cls()
        low, high = stored.value_range
        return cls(stored.dtype, (float(low), float(high)))

    def convert(self, data: HasColourSpace, images: tf.Tensor) -> tf.Tensor:
        """Converts outputs of networks to pictures of this scale.

        Args:
          data: its colour space is that of `images`.
          images: float [..., C] in [-1, 1]; 3 channels are in the data's colour space.

        Returns:
          `dtype` [..., C], clipped to the range; integers are rounded, halves up.
        """
        low, high = self.value_range
        pictures = imaging.signed_to_range(
            to_rgb(data, images), low=low, high=high, dtype=tf.as_dtype(self.dtype)
        )
        return tf.clip_by_value(pictures, low, high) if pictures.dtype.is_floating else pictures

    def __str__(self) -> str:
        low, high = self.value_range
        return f"[{low:g}, {high:g}]"


def to_8_bits(pictures: tf.Tensor, scale: PictureScale) -> tf.Tensor:
    """Converts pictures of any scale to uint8, for display."""
    if scale == PictureScale():
        return pictures
    low, high = scale.value_range
    return imaging.to_uint8(imaging.range_to_signed(pictures, low=low, high=high))
