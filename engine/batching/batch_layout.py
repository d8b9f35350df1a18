"""How a global batch is divided over replicas and micro-batches.

A step of G examples on R replicas runs as k micro-batches of at most m examples on each replica (k is the
accumulation). Micro-batch j holds the examples [j R m, (j + 1) R m) of the step, so micro-batches are in
example order. Each is divided like a global batch: every replica gets ceil(its examples / R) rows, in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from engine.errors import ConfigurationError


def rows_of_replicas(examples: int, replicas: int) -> tuple[int, ...]:
    """How `experimental_distribute_dataset` divides a batch: ceil(examples / replicas) each, in order.

    The last replicas get the rest, which may be 0: 7 on 3 is (3, 3, 1), 1 on 2 is (1, 0).

    Args:
      examples: of the batch.
      replicas: number of replicas.
    """
    largest = -(-examples // replicas)
    return tuple(max(0, min(largest, examples - replica * largest)) for replica in range(replicas))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """The layout of one global batch.

    Attributes:
      global_batch: examples per step, G.
      replicas: R.
      largest_micro_batch: examples that a replica can compute on at once; None is unlimited.
      static_shapes: whether all replicas compute on the same number of rows, which compilers for fixed shapes
        need. Padding rows have weight 0.
      is_only: whether the run has no other global batch. If it divides evenly, the step is then traced for
        its rows, so that TensorFlow computes shapes once and not in every step; otherwise one trace serves
        every batch.

    Raises:
      ConfigurationError: `largest_micro_batch` is below 1.
    """

    global_batch: int
    replicas: int
    largest_micro_batch: int | None = None
    static_shapes: bool = False
    is_only: bool = False

    def __post_init__(self) -> None:
        if self.largest_micro_batch is not None and self.largest_micro_batch < 1:
            raise ConfigurationError(
                f"LARGEST_MICRO_BATCH = {self.largest_micro_batch}: must be at least 1 example, or None for "
                "whole batches"
            )

    @property
    def per_replica_batch(self) -> int:
        """Examples of a step on the fullest replica."""
        return -(-self.global_batch // self.replicas)

    @property
    def micro_batch(self) -> int:
        """Rows of a micro-batch on each replica, m; micro-batches are as even as possible."""
        pieces = -(-self.per_replica_batch // (self.largest_micro_batch or self.per_replica_batch))
        return -(-self.per_replica_batch // pieces)

    @property
    def accumulation(self) -> int:
        """Micro-batches whose gradients are added before one update, k."""
        return -(-self.global_batch // (self.replicas * self.micro_batch))

    @property
    def is_padded(self) -> bool:
        """Whether every replica gets k m rows, padding included; otherwise only its examples."""
        return self.static_shapes or self.accumulation > 1

    @property
    def rows_are_known(self) -> bool:
        """Whether each replica gets one number of rows in every step of the run, none of them padding."""
        return self.is_only and not self.is_padded and self.global_batch % self.replicas == 0

    def positions(self, replicas: Sequence[int]) -> np.ndarray:
        """The example in each row of these replicas, with padding.

        Args:
          replicas: their numbers.

        Returns:
          int64 [len(replicas), k m]: position in the global batch, -1 for a padding row.
        """
        m, k = self.micro_batch, self.accumulation
        positions = np.full([self.replicas, k, m], -1, np.int64)
        for micro in range(k):
            first = micro * self.replicas * m
            counts = rows_of_replicas(min(self.replicas * m, self.global_batch - first), self.replicas)
            for replica, count in enumerate(counts):
                positions[replica, micro, :count] = first + np.arange(count)
                first += count
        return positions[list(replicas)].reshape(len(replicas), k * m)
