"""Leakage: finds the same image in two splits by digests of the pixels."""

from __future__ import annotations

import array
import collections
import typing

import numpy as np

_DIGEST_BYTES = 16


class Duplicate(typing.NamedTuple):
    """An image that is in two splits.

    Attributes:
      role: of the image in both examples.
      first_split: the earlier split.
      first_example: index of the example in it.
      second_split: the later split.
      second_example: index of the example in it.
    """

    role: str
    first_split: str
    first_example: int
    second_split: str
    second_example: int


class Digests:
    """Digests of the images of each role in each split; they take about 20 bytes per image.

    Images of one role are compared with each other: the A of one split with the A of another, never with
    its B.
    """

    def __init__(self) -> None:
        # (role, split) -> (digests one after the other, index of the example of each)
        self._of: dict[tuple[str, str], tuple[bytearray, array.array]] = collections.defaultdict(
            lambda: (bytearray(), array.array("I"))
        )

    def add(self, split: str, role: str, example: int, digest: bytes) -> None:
        """Adds an image.

        Args:
          split: of the example.
          role: of the image in its example.
          example: index in the split.
          digest: 16 bytes.
        """
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"digest: is {len(digest)} bytes, not {_DIGEST_BYTES}")
        digests, examples = self._of[role, split]
        digests += digest
        examples.append(example)

    def duplicates(self) -> list[Duplicate]:
        """Returns a `Duplicate` for each image that is also in an earlier split, by role and example.

        The order of the splits is that in which they were first added. Copies within a split do not count.
        """
        found = []
        for role in dict.fromkeys(role for role, _ in self._of):
            splits = [split for other, split in self._of if other == role]
            for later, split in enumerate(splits):
                unmatched = np.ones(len(self._of[role, split][1]), bool)
                for earlier in splits[:later]:
                    found += self._between(role, earlier, split, unmatched)
        return found

    def _between(self, role: str, first: str, second: str, unmatched: np.ndarray) -> list[Duplicate]:
        """Duplicates of two splits among the `unmatched` images [n] of the second; clears those it finds."""
        keys, examples = zip(*(self._arrays(role, split) for split in (first, second)), strict=True)
        order = np.argsort(keys[0], kind="stable")
        place = np.searchsorted(keys[0], keys[1], sorter=order)
        candidates = order[np.minimum(place, len(order) - 1)]  # [n] of the second split
        same = (keys[0][candidates] == keys[1]) & unmatched
        unmatched &= ~same
        return [
            Duplicate(role, first, int(examples[0][candidates[k]]), second, int(examples[1][k]))
            for k in np.flatnonzero(same)
        ]

    def _arrays(self, role: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        digests, examples = self._of[role, split]
        return np.frombuffer(digests, f"V{_DIGEST_BYTES}"), np.frombuffer(examples, np.uint32)
