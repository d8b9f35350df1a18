"""Strips that show an input, its output and its target side by side."""

from __future__ import annotations

import numpy as np

from data import imaging
from engine.evaluation.sample_grid import join_columns
from engine.pictures import picture_formats
from engine.pictures.picture_formats import EXTENSIONS, PNG, TIFF
from engine.pictures.picture_input import Picture


def strip_ending(format: str) -> str:
    """What follows the name of an output in that of its strip, such as "_compare.png"."""
    return f"_compare{EXTENSIONS[_format(format)]}"


def comparison_strip(picture: Picture, output: np.ndarray, target: Picture | None, *, format: str) -> bytes:
    """Encodes input | output | target, with 8 bits; smaller ones are enlarged (nearest neighbour).

    Args:
      picture: that was translated.
      output: uint8 [H, W, C].
      target: that was wanted; None leaves it out.
      format: of the outputs; strips beside TIFF are PNG.
    """
    columns = [_shown(picture), output, *([] if target is None else [_shown(target)])]
    strip = join_columns([column[np.newaxis] for column in columns])[0]
    return picture_formats.encode(strip, _format(format), has_alpha=False)


def _shown(picture: Picture) -> np.ndarray:
    """A picture as uint8 [H, W, C]."""
    low, high = picture.value_range
    return imaging.to_uint8(imaging.range_to_signed(picture.pixels, low=low, high=high)).numpy()


def _format(format: str) -> str:
    return PNG if format == TIFF else format
