"""The classes of an image whose pixel values are classes: class ids, or the colours of a palette."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data.errors import DataError
from data.imaging import Classes

MOST_CLASSES = 256
"""With more different pixel values, an image is a picture rather than labels."""

_LOWEST_ID, _HIGHEST_ID = -32768, 65535
_MOST_CHANNELS = 4
_BASE = 2**16

Pixels = frozenset[tuple[int, ...]]


def classes_in(pixels: np.ndarray) -> Pixels | None:
    """Returns the different pixel values of an image, or None if there are more than `MOST_CLASSES`.

    Args:
      pixels: [H, W, C], of an integer dtype or float32.

    Raises:
      DataError: a value is not a whole number or too large, or there are too many channels; the caller names
        the file.
    """
    channels = pixels.shape[-1]
    if channels > _MOST_CHANNELS:
        raise DataError(f"has {channels} channels, and labels have 1 to {_MOST_CHANNELS}; convert it")
    lowest = _LOWEST_ID if channels == 1 else 0
    if pixels.dtype.kind == "f":
        wrong = pixels[~((pixels == np.round(pixels)) & (pixels >= lowest) & (pixels <= _HIGHEST_ID))]
        if wrong.size:
            raise DataError(
                f"has the value {wrong[0]:g}, and classes are whole numbers from {lowest} to {_HIGHEST_ID}; "
                "mend it, or prepare it as values"
            )
    # As one number per pixel, which NumPy sorts much faster than rows. Wrapping around keeps them apart.
    digits = pixels.reshape(-1, channels).astype(np.int64)
    places = np.array([_BASE**place for place in range(channels)], np.int64)
    _, first = np.unique(digits @ places, return_index=True)
    if len(first) > MOST_CLASSES:
        return None
    return frozenset(tuple(map(int, pixel)) for pixel in digits[first])


def joined(found: Iterable[Pixels | None]) -> Pixels | None:
    """Returns the pixel values of several images, or None if there are more than `MOST_CLASSES`."""
    together: frozenset[tuple[int, ...]] = frozenset()
    for pixels in found:
        together = together | (pixels or frozenset())
        if pixels is None or len(together) > MOST_CLASSES:
            return None
    return together


def as_classes(pixels: Pixels | None) -> Classes:
    """Returns pixel values in their order, that of the channels of a one-hot image; none for None."""
    return tuple(sorted(pixels or ()))
