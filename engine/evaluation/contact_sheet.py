"""A picture of the worst and the best images of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from engine.evaluation.sample_grid import join_columns

ORDER_BY = "psnr_db"
"""The metric that tells the worst and the best images."""

_CAPTION_HEIGHT = 16  # pixels, for Pillow's own font
_GAP = 4
_WHITE = 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownImage:
    """One row of a contact sheet.

    Attributes:
      value: of `ORDER_BY`.
      example: position in the split.
      name: of the example; empty if it has none.
      columns: uint8 [H, W, C] by name, such as "input", "output" and "target".
    """

    value: float
    example: int
    name: str
    columns: Mapping[str, np.ndarray]


class Extremes:
    """Keeps the worst and the best images of a split, in bounded memory.

    Args:
      count: images to keep at each end.
    """

    def __init__(self, *, count: int = 4) -> None:
        self._count = count
        self._low: list[ShownImage] = []
        self._high: list[ShownImage] = []

    def takes(self, value: float) -> bool:
        """Whether an image of this value would be kept now."""
        return len(self._low) < self._count or value < self._low[-1].value or value > self._high[-1].value

    def add(self, image: ShownImage) -> None:
        """Takes an image; of equal values the first ones stay."""
        self._low = self._kept([*self._low, image], reverse=False)
        self._high = self._kept([*self._high, image], reverse=True)

    @property
    def worst(self) -> list[ShownImage]:
        """The worst images, the worst first."""
        return self._low

    @property
    def best(self) -> list[ShownImage]:
        """The best images that are not among the worst, the best first."""
        shown = {image.example for image in self.worst}
        return [image for image in self._high if image.example not in shown]

    def _kept(self, images: list[ShownImage], *, reverse: bool) -> list[ShownImage]:
        return sorted(images, key=lambda image: image.value, reverse=reverse)[: self._count]


def contact_sheet(extremes: Extremes) -> np.ndarray:
    """Draws the worst images on the left and the best on the right, with the value of each.

    Args:
      extremes: at least one image.

    Returns:
      uint8 [H, W, 3].
    """
    blocks = [
        _block(images, title=f"{title} {ORDER_BY}")
        for title, images in (("worst", extremes.worst), ("best", extremes.best))
        if images
    ]
    height = max(block.shape[0] for block in blocks)
    padded = [
        np.pad(block, [(0, height - block.shape[0]), (0, 4 * _GAP), (0, 0)], constant_values=_WHITE)
        for block in blocks
    ]
    return np.concatenate(padded, axis=1)[:, : -4 * _GAP]


def _block(images: Sequence[ShownImage], *, title: str) -> np.ndarray:
    """The title, then a caption and the columns of each image: uint8 [H, W, 3]."""
    columns = " | ".join(images[0].columns)
    rows = [
        _rgb(join_columns([column[np.newaxis] for column in image.columns.values()])[0]) for image in images
    ]
    width = max(row.shape[1] for row in rows)
    parts = [_caption(f"{title}: {columns}", width)]
    for image, row in zip(images, rows, strict=True):
        parts.append(_caption(f"{image.value:.4g}  {image.name or image.example}", width))
        parts.append(np.pad(row, [(0, _GAP), (0, width - row.shape[1]), (0, 0)], constant_values=_WHITE))
    return np.concatenate(parts)


def _rgb(picture: np.ndarray) -> np.ndarray:
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _caption(text: str, width: int) -> np.ndarray:
    """One line of text, cut at the width: uint8 [16, width, 3]."""
    line = Image.new("RGB", (width, _CAPTION_HEIGHT), "white")
    ImageDraw.Draw(line).text((1, 2), text, fill="black")
    return np.asarray(line)
