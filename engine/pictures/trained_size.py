"""Resizing pictures to the size that a network was trained on, and its outputs back."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
import tensorflow as tf

from data.description import DataDescription
from data.pipeline import resizing
from data.pipeline.cropping import PAD
from data.roles import INPUT, TARGET

AS_TRAINED, NONE = "as_trained", "none"
RESIZES = (NONE, AS_TRAINED)
"""What --resize may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedSize:
    """The size of the pictures that a network was trained on.

    Attributes:
      height: of the network's inputs in training, in pixels.
      width: likewise.
      loaded: (height, width) of the whole pictures from which they were cut.
      keeps_aspect_ratio: whether the pictures were padded instead of stretched.
      takes_labels: whether the values of the inputs are classes, which are not interpolated.
      makes_labels: whether those of the outputs are.
    """

    height: int
    width: int
    loaded: tuple[int, int]
    keeps_aspect_ratio: bool = False
    takes_labels: bool = False
    makes_labels: bool = False

    def at(self, height: int, width: int) -> Self:
        """The same for another height and width in pixels."""
        return dataclasses.replace(self, height=height, width=width)

    def differs(self, height: int, width: int) -> bool:
        """Whether a picture of this size in pixels has another scale than those of the training."""
        return (height, width) not in ((self.height, self.width), self.loaded)

    def apply(self, pixels: np.ndarray, *, padding: float) -> tf.Tensor:
        """Resizes a picture as in evaluation.

        Args:
          pixels: [H, W, C], uint8, uint16 or float32.
          padding: value of padding, black.

        Returns:
          [self.height, self.width, C] of the same dtype.
        """
        size = {"height": self.height, "width": self.width}
        if self.keeps_aspect_ratio:
            return resizing.resize_with_pad(pixels, **size, value=padding, is_labels=self.takes_labels)
        return resizing.resize(pixels, **size, is_labels=self.takes_labels)

    def undo(self, output: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
        """Resizes the output for a picture that `apply` has resized.

        Args:
          output: [H', W', C], float; may be larger than the input by a factor.
          height: of the picture before `apply`, in pixels.
          width: likewise.

        Returns:
          [height, width, C], larger by that factor.
        """
        factors = output.shape[0] / self.height, output.shape[1] / self.width
        if self.keeps_aspect_ratio:
            inner = [int(length) for length in resizing.fitted_size(height, width, self.height, self.width)]
            top, left = (self.height - inner[0]) // 2, (self.width - inner[1]) // 2
            rows = slice(round(top * factors[0]), round((top + inner[0]) * factors[0]))
            columns = slice(round(left * factors[1]), round((left + inner[1]) * factors[1]))
            output = output[rows, columns]
        size = {"height": round(height * factors[0]), "width": round(width * factors[1])}
        return resizing.resize(output, **size, is_labels=self.makes_labels)


def trained_size(data: DataDescription, role: str) -> TrainedSize | None:
    """The size at which a network saw the images of a role.

    Args:
      data: that it was trained on.
      role: "input" or "target".

    Returns:
      None if training left the images at their size (LOAD_SIZE = 0), or it is not known.
    """
    if data.load_size is None or data.crop_size is None:
        return None
    height, width = data.shapes[role][:2]
    # Super-resolution makes inputs smaller after the crop.
    load_height, load_width = data.load_size
    crop_height, crop_width = data.crop_size
    loaded = (load_height * height // crop_height, load_width * width // crop_width)
    other = TARGET if role == INPUT else INPUT
    return TrainedSize(
        height=height,
        width=width,
        loaded=loaded,
        keeps_aspect_ratio=data.resize == PAD,
        takes_labels=role in data.label_roles,
        makes_labels=other in data.label_roles,
    )
