"""Chroma planes of 4:2:0 video: interpolated to the size of luma, and back.

A chroma sample lies half a sample after the first of its two luma samples ("center"), or at the first
("left").
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.linalg

LOCATIONS = ("left", "center")
"""Positions of a chroma sample among its four luma samples: MPEG-2 and H.264, or JPEG."""

_NEAREST_WEIGHTS = {"left": (1.0, 0.5), "center": (0.75, 0.75)}
"""The weight of a sample in the first and in the second of its pixels; the rest is its neighbour's."""


def interpolated(planes: np.ndarray, *, height: int, width: int, location: str) -> np.ndarray:
    """Interpolates chroma linearly to the size of luma; the outermost samples are repeated.

    Args:
      planes: [P, ceil(height / 2), ceil(width / 2)].
      height: of luma.
      width: of luma.
      location: of chroma along the width, one of `LOCATIONS`; along the height it is "center".

    Returns:
      float64 [P, height, width].
    """
    planes = _doubled(planes, axis=1, location="center")[:, :height]
    return _doubled(planes, axis=2, location=location)[:, :, :width]


def subsampled(planes: np.ndarray, *, location: str) -> np.ndarray:
    """The chroma whose interpolation is nearest to given planes, in the sense of least squares.

    So it is the exact inverse of `interpolated`. The usual means of neighbouring pixels are not: they would
    blur the chroma a little more each time a clip is read and written.

    Args:
      planes: floating [P, H, W].
      location: as of `interpolated`.

    Returns:
      float64 [P, ceil(H / 2), ceil(W / 2)], neither rounded nor clipped.
    """
    planes = _halved(planes, axis=2, location=location)
    return _halved(planes, axis=1, location="center")


def repeated(planes: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Repeats each chroma sample for its (up to) four luma samples: [P, height, width] of the same dtype."""
    return planes.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]


def averaged(planes: np.ndarray) -> np.ndarray:
    """The mean of the (up to) four pixels of each chroma sample, the inverse of `repeated`.

    Args:
      planes: floating [P, H, W].

    Returns:
      [P, ceil(H / 2), ceil(W / 2)] of the same dtype.
    """
    odd = planes.shape[1] % 2, planes.shape[2] % 2
    planes = np.pad(planes, ((0, 0), (0, odd[0]), (0, odd[1])), mode="edge")
    return planes.reshape(len(planes), planes.shape[1] // 2, 2, planes.shape[2] // 2, 2).mean(axis=(2, 4))


def _doubled(planes: np.ndarray, *, axis: int, location: str) -> np.ndarray:
    """Doubles the length of an axis by linear interpolation: float64."""
    planes = np.moveaxis(planes.astype(np.float64), axis, 0)
    before = np.concatenate([planes[:1], planes[:-1]])
    after = np.concatenate([planes[1:], planes[-1:]])
    near, far = _NEAREST_WEIGHTS[location]
    first, second = near * planes + (1 - near) * before, far * planes + (1 - far) * after
    both = np.stack([first, second], axis=1)
    return np.moveaxis(both.reshape(-1, *planes.shape[1:]), 0, axis)


def _halved(planes: np.ndarray, *, axis: int, location: str) -> np.ndarray:
    """Solves (U^T U) c = U^T x along an axis, U being the interpolation of `_doubled`: float64.

    The rows of U: first[i] = near c[i] + (1 - near) c[i - 1] and second[i] = far c[i] + (1 - far) c[i + 1].
    """
    planes = np.moveaxis(planes, axis, 0)
    length, shape = len(planes), planes.shape[1:]
    samples = -(-length // 2)
    near, far = _NEAREST_WEIGHTS[location]
    if length % 2:
        planes = np.concatenate([planes, np.zeros_like(planes[:1])])
    first, second = planes[0::2], planes[1::2]
    product = near * first + far * second  # U^T x
    product[:-1] += (1 - near) * first[1:]
    product[0] += (1 - near) * first[0]  # the outermost samples are repeated
    product[1:] += (1 - far) * second[:-1]
    product[-1] += (1 - far) * second[-1]
    factor = _normal_equations(length, location)
    solved = scipy.linalg.cho_solve_banded((factor, True), product.reshape(samples, -1), check_finite=False)
    return np.moveaxis(solved.reshape(samples, *shape), 0, axis)


@functools.lru_cache(maxsize=8)
def _normal_equations(length: int, location: str) -> np.ndarray:
    """The Cholesky factor of U^T U, which is tridiagonal, as a lower band [2, samples]."""
    near, far = _NEAREST_WEIGHTS[location]
    nearest = np.arange(length) // 2  # the two samples that each row of U mixes
    other = np.clip(nearest + np.where(np.arange(length) % 2, 1, -1), 0, nearest[-1])
    weight = np.where(np.arange(length) % 2, far, near)
    band = np.zeros((2, nearest[-1] + 1))
    np.add.at(band[0], nearest, weight**2)
    np.add.at(band[0], other, (1 - weight) ** 2)
    products = weight * (1 - weight)
    np.add.at(band[0], nearest, np.where(nearest == other, 2 * products, 0))
    np.add.at(band[1], np.minimum(nearest, other), np.where(nearest == other, 0, products))
    return scipy.linalg.cholesky_banded(band, lower=True)
