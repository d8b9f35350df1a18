"""FID: the Fréchet distance between two sets of features, each described by a normal distribution.

Figures are comparable only for one feature extractor and one number of images: FID is biased upwards, more
with fewer images. Below as many images as features the covariances have no full rank, and the bias is large;
prefer KID (`engine.evaluation.kernel_distance`) there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigurationError


class FeatureMoments:
    """Mean and covariance of features, from running sums in float64: O(D^2) memory for any number of rows.

    Batches are merged by their centred sums (Chan et al. 1983, doi:10.1080/00031305.1983.10483115), so a mean
    that is large compared with the deviation costs no precision. How rows are divided into batches changes
    the last digits only.

    Attributes:
      count: rows so far.
      mean: float64 [D].
      scatter: float64 [D, D], sum of (x - mean)(x - mean)^T.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimensions)
        self.scatter = np.zeros((dimensions, dimensions))

    def add(self, features: npt.ArrayLike) -> None:
        """Adds rows.

        Args:
          features: [B, D], finite; B may be 0.

        Raises:
          ValueError: the shape is another one, or a value is not finite.
        """
        rows = check_features(features, dimensions=len(self.mean)).astype(np.float64)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        total = self.count + len(rows)
        step = mean - self.mean
        self.scatter += centred.T @ centred + np.outer(step, step) * (self.count * len(rows) / total)
        self.mean = self.mean + step * (len(rows) / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """The unbiased covariance, float64 [D, D], as in the authors' code.

        Raises:
          ConfigurationError: there are fewer than two rows.
        """
        if self.count < 2:
            raise ConfigurationError(
                f"FID: needs at least 2 images on each side, not {self.count}; add images to the split"
            )
        return self.scatter / (self.count - 1)


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Computes |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    Source: Heusel et al., arXiv 1706.08500, equation 6; Dowson and Landau 1982
    (doi:10.1016/0047-259X(82)90077-X).

    The trace of the root is the sum of the singular values of S_a^(1/2) S_b^(1/2). That is exact for singular
    covariances too, where a general matrix root gives complex numbers or needs a constant on the diagonal.

    Args:
      a: of one set; the order does not matter.
      b: of the other set, by the same extractor.

    Returns:
      At least 0, up to rounding.

    Raises:
      ConfigurationError: a set has fewer than two images.
      ValueError: the numbers of features differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"FID: {len(a.mean)} and {len(b.mean)} features; compare features of one extractor")
    first, second = a.covariance(), b.covariance()
    roots = np.linalg.svd(_factor(first).T @ _factor(second), compute_uv=False)
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2 * roots.sum())


def check_features(features: npt.ArrayLike, *, dimensions: int | None = None) -> np.ndarray:
    """Checks rows of features.

    Args:
      features: [B, D].
      dimensions: D, if it is known.

    Returns:
      The features as an array.

    Raises:
      ValueError: the shape is another one, or a value is not finite.
    """
    rows = np.asarray(features)
    if rows.ndim != 2 or dimensions not in (None, rows.shape[1]):
        raise ValueError(f"features: must be [B, {dimensions or 'D'}], not {rows.shape}; use one extractor")
    if not np.all(np.isfinite(rows)):
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise ValueError(f"features: row {row} is not finite; check the image, or the extractor's weights")
    return rows


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F with F F^T = covariance: eigenvectors, scaled by the roots of their eigenvalues."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))  # rounding makes zeros negative
