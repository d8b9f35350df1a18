"""Which size, at least that of a picture, a network takes; and padding pictures to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from engine.errors import ConfigurationError

_LARGEST_MULTIPLE = 1024
"""Networks halve sizes a few times: what they need is found among the powers of two up to this."""

_TRIED = 3
"""Sizes of so many multiples are tried: one too small for a network would say nothing about the multiple."""


class SizeFit:
    """Finds sizes that a network takes, by trying.

    Args:
      check: raises ConfigurationError for a height and width (pixels) that the network cannot take.
      trace: likewise, for networks whose sizes nothing tells before they are tried; it may take a second.
    """

    def __init__(
        self, check: Callable[[int, int], None], trace: Callable[[int, int], None] | None = None
    ) -> None:
        self._check, self._trace = check, trace
        self._refused: dict[tuple[int, int], ConfigurationError] = {}
        self._known: dict[tuple[int, int], tuple[int, int]] = {}

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest size that the network takes with the picture in its top left corner.

        The sides are rounded up to a multiple of 1, 2, 4, ...

        Raises:
          ConfigurationError: why it does not take the picture's own size; it takes no such larger one either.
        """
        if (height, width) not in self._known:
            self._known[height, width] = self._find(height, width)
        return self._known[height, width]

    def refuse(self, height: int, width: int, error: ConfigurationError) -> None:
        """Notes that the network has failed on a size that passed the check."""
        self._refused.setdefault((height, width), error)
        self._known = {given: fit for given, fit in self._known.items() if fit != (height, width)}

    def multiple(self) -> int:
        """The multiple that sizes need: positions of tiles are multiples of it too.

        Raises:
          ConfigurationError: there is none, as for a network that is built for one size.
        """
        first: ConfigurationError | None = None
        multiple = 1
        while multiple <= _LARGEST_MULTIPLE:
            side = _TRIED * multiple
            if (error := self._problem(side, side, traces=True)) is None:
                return multiple
            first = first or error
            multiple *= 2
        assert first is not None
        raise first

    def _find(self, height: int, width: int) -> tuple[int, int]:
        first: ConfigurationError | None = None
        multiple = 1
        while multiple <= _LARGEST_MULTIPLE:
            size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
            if (error := self._problem(*size)) is None:
                return size
            first = first or error
            multiple *= 2
        assert first is not None
        raise first

    def _problem(self, height: int, width: int, *, traces: bool = False) -> ConfigurationError | None:
        if (height, width) not in self._refused:
            try:
                self._check(height, width)
                if traces and self._trace is not None:
                    self._trace(height, width)
            except ConfigurationError as error:
                self._refused[height, width] = error
        return self._refused.get((height, width))


def pad(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pads a picture at the bottom and on the right, where its top left corner stays the network's.

    It is mirrored without repeating its border; along an axis that is too short for that, its border is
    repeated.

    Args:
      pixels: [H, W, C].
      height: of the result, at least H.
      width: likewise.
    """
    for axis, size in enumerate((height, width)):
        missing = size - pixels.shape[axis]
        if missing:
            widths = [(0, missing if n == axis else 0) for n in range(pixels.ndim)]
            mode: Literal["reflect", "edge"] = "reflect" if missing < pixels.shape[axis] else "edge"
            pixels = np.pad(pixels, widths, mode=mode)
    return pixels
