"""KID: the squared maximum mean discrepancy (MMD) between two sets of features, estimated without bias.

Unlike FID it has no bias for few images, so it suits the small test splits of image translation. Figures are
comparable only for one feature extractor.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigurationError
from engine.evaluation.frechet_distance import check_features

BLOCK = 1000
"""Features of the larger set in one block, as in the KID paper."""

SAMPLE = 20_000
"""Rows that `FeatureSample` keeps by default: of 2,048 features, 164 MB."""


class FeatureSample:
    """Keeps features as float32 in bounded memory: all rows, or a uniform random sample of them.

    With more rows than it keeps, each has the same chance to be kept (reservoir sampling, Vitter 1985,
    doi:10.1145/3147.3165). Which ones depends only on their order. KID of a sample has no bias either.

    Attributes:
      count: rows so far, kept or not.

    Args:
      limit: rows to keep.
    """

    def __init__(self, limit: int = SAMPLE) -> None:
        self.count = 0
        self._limit = limit
        self._kept: list[np.ndarray] = []  # [D] each
        self._random = np.random.default_rng(0)

    def add(self, features: npt.ArrayLike) -> None:
        """Adds rows.

        Args:
          features: [B, D], finite; B may be 0.

        Raises:
          ValueError: the shape is another one, or a value is not finite.
        """
        rows = check_features(features, dimensions=len(self._kept[0]) if self._kept else None)
        for row in rows.astype(np.float32):
            self.count += 1
            if len(self._kept) < self._limit:
                self._kept.append(row.copy())  # a view would keep the whole batch
            elif (place := self._random.integers(self.count)) < self._limit:
                self._kept[place] = row.copy()

    def rows(self) -> np.ndarray:
        """The rows that are kept, float32 [N, D].

        Raises:
          ConfigurationError: there are none.
        """
        if not self._kept:
            raise ConfigurationError("KID: a set without images; add images to the split")
        return np.stack(self._kept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """KID of two sets.

    Attributes:
      value: mean of the blocks' estimates. Unbiased, so it is below 0 for about half of the pairs of samples
        from one distribution.
      standard_error: of `value`, from the spread of the blocks; None for a single block.
      blocks: how many there were.
    """

    value: float
    standard_error: float | None
    blocks: int


def kernel_distance(
    a: npt.ArrayLike, b: npt.ArrayLike, *, block: int = BLOCK, seed: int = 0
) -> KernelDistance:
    """Computes the unbiased estimate of MMD^2 with the kernel (x . y / D + 1)^3, averaged over blocks.

    Source: Bińkowski et al., arXiv 1801.01401, section 4; the estimate is equation 3 of Gretton et al. 2012
    (JMLR 13, "A kernel two-sample test"). Both sets are divided into the same number of blocks, each of its
    own size, so that unequal counts leave out no image: all pairs are compared that lie in one block.

    Args:
      a: features [N, D] of one set; the order of the sets does not matter.
      b: features [M, D] of the other set.
      block: at most this many features of the larger set in a block. The cost grows with it, and the variance
        falls.
      seed: of the division into blocks; rows are shuffled, since data sets are often sorted.

    Raises:
      ConfigurationError: a set has fewer than two images.
      ValueError: the numbers of features differ, or a value is not finite.
    """
    a = check_features(a)
    b = check_features(b, dimensions=a.shape[1])
    smaller, larger = sorted((len(a), len(b)))
    if smaller < 2:
        raise ConfigurationError(
            f"KID: needs at least 2 images on each side, not {smaller}; add images to the split"
        )
    blocks = min(-(-larger // block), smaller // 2)  # each needs two rows of each set
    random = np.random.default_rng(seed)
    parts = [np.array_split(rows[random.permutation(len(rows))], blocks) for rows in (a, b)]
    estimates = np.array([_unbiased_mmd2(x, y) for x, y in zip(*parts, strict=True)])
    error = float(estimates.std(ddof=1) / np.sqrt(blocks)) if blocks > 1 else None
    return KernelDistance(value=float(estimates.mean()), standard_error=error, blocks=blocks)


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """MMD^2 of two blocks, [N, D] and [M, D], without the pairs of a row with itself."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * float(_kernel(x, y).mean())


def _mean_of_pairs(x: np.ndarray) -> float:
    """Mean of the kernel over the pairs of two different rows."""
    kernel = _kernel(x, x)
    return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The polynomial kernel of degree 3 with gamma = 1 / D and coefficient 1: [N, D], [M, D] -> [N, M]."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3
