"""How far from a border an image-to-image function depends on what lies behind it, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOLERANCE = 1e-4
"""Largest change, of outputs from -1 to 1, that counts as none: an eightieth of a level of 8 bits."""


def context_radius(
    function: Callable[[np.ndarray], np.ndarray],
    *,
    noise: Callable[[np.random.Generator, int, int], np.ndarray],
    multiple: int,
    longest: int = 256,
    seed: int = 0,
) -> int | None:
    """Measures the receptive radius: pixels next to a border whose outputs depend on the other side.

    It computes outputs for noise, twice: the second time with other noise behind a border. The border runs
    vertically, then horizontally, with the change before it and then behind it.

    Args:
      function: maps [B, H, W, C] in [-1, 1] to [B, f H, f W, C'] for some f.
      noise: draws an input [H, W, C] for a height and width.
      multiple: what H and W must be multiples of.
      longest: the largest radius to look for, in pixels.
      seed: of the noise.

    Returns:
      The radius in pixels of the input, rounded up to `multiple`; None if it is larger than `longest`, as
      with norms that use statistics of the image.
    """
    half = -(-(longest + 1) // multiple) * multiple
    short = -(-32 // multiple) * multiple
    random = np.random.default_rng(seed)
    radius = 0
    for turned in (False, True):
        same, other = noise(random, short, 2 * half), noise(random, short, half)
        pictures = np.stack(
            [same, np.concatenate([same[:, :half], other], 1), np.concatenate([other, same[:, half:]], 1)]
        )  # [3, short, 2 * half, C]
        outputs = function(pictures.swapaxes(1, 2) if turned else pictures)
        outputs = outputs.swapaxes(1, 2) if turned else outputs
        factor = outputs.shape[2] / (2 * half)
        border = outputs.shape[2] // 2
        before, behind = (np.abs(outputs[n] - outputs[0]).max(axis=(0, 2)) > TOLERANCE for n in (1, 2))
        # The change behind the border reaches into what lies before it, and the other way round.
        reached = max(_extent(before[:border][::-1]), _extent(behind[border:]))
        if reached >= border:
            return None
        radius = max(radius, -(-round(reached / factor) // multiple) * multiple)
    return radius


def _extent(changed: np.ndarray) -> int:
    """How many of the first values there are up to the last one that is true."""
    where = np.flatnonzero(changed)
    return int(where[-1]) + 1 if where.size else 0
