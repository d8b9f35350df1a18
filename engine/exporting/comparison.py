"""Compares what an export computes with what the run itself computes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from engine.errors import ConfigurationError, NonFiniteOutputError

MOST_LEVELS = 1.0
"""How far an export in float32 may be from its run, in 1/255 of the range from black to white."""

_ROUNDING_LEVELS = 1e-3  # a difference of 1 between whole numbers may become a little more in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the results of an export are from those of the run.

    Attributes:
      largest_levels: largest difference of a value, in 1/255 of the range from black to white.
      psnr_db: mean over the pictures; infinite if all are equal.
    """

    largest_levels: float
    psnr_db: float

    def __str__(self) -> str:
        psnr = "equal" if math.isinf(self.psnr_db) else f"PSNR {self.psnr_db:.1f} dB"
        return f"largest difference {self.largest_levels:.2g}/255, {psnr}"


def difference(results: Any, expected: Any) -> Difference:
    """Compares pictures.

    Args:
      results: of the export, float [N, H, W, C] in [-1, 1].
      expected: of the run, likewise.
    """
    # Colours outside RGB are of no picture.
    results, expected = (np.clip(np.asarray(x, np.float64), -1.0, 1.0) for x in (results, expected))
    errors = results - expected
    mse = np.mean(np.square(errors), axis=(1, 2, 3))  # [N]
    with np.errstate(divide="ignore"):
        psnr_db = 10.0 * np.log10(4.0 / mse)
    return Difference(largest_levels=float(np.abs(errors).max()) * 127.5, psnr_db=float(np.mean(psnr_db)))


def check_finite(results: Any, *, what: str) -> None:
    """Raises NonFiniteOutputError if a result is not finite."""
    if not np.all(np.isfinite(results)):
        raise NonFiniteOutputError(what)


def check_difference(found: Difference, *, file: str, is_exact: bool) -> None:
    """Checks an export before it counts.

    Args:
      found: its difference from the run.
      file: of the export, for the message.
      is_exact: whether it should compute what the run computes, but for rounding.

    Raises:
      ConfigurationError: it does not.
    """
    if is_exact and not found.largest_levels <= MOST_LEVELS + _ROUNDING_LEVELS:
        raise ConfigurationError(
            f"{file}: differs from the run by up to {found.largest_levels:.3g}/255, more than "
            f"{MOST_LEVELS:g}/255, so nothing was written; export another --format, or without --fast"
        )
