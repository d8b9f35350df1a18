"""Leakage: the same picture in two splits, found by digests of the pixels."""

import array
import collections
import typing

import numpy as np

_DIGEST_BYTES = 16


class Duplicate(typing.NamedTuple):
    """A picture that stands in two splits: the splits, the numbers of the examples in them, its role."""

    role: str
    first_split: str
    first_example: int
    second_split: str
    second_example: int


class Digests:
    """Digests of the pictures of each role in each split: some 20 bytes a picture are held.

    A role is what is compared: the A of one split with the A of another, never with its B.
    """

    def __init__(self):
        self._of = collections.defaultdict(lambda: (bytearray(), array.array("I")))

    def add(self, split, role, example, digest):
        """Notes the digest, 16 bytes, of the picture that example number `example` has in a role."""
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"digest: is {len(digest)} bytes, not {_DIGEST_BYTES}")
        digests, examples = self._of[role, split]
        digests += digest
        examples.append(example)

    def duplicates(self):
        """Gives a `Duplicate` for each picture that an earlier split has too, by role and example.

        Splits are in the order in which they were first added. Copies inside one split are none.
        """
        found = []
        for role in dict.fromkeys(role for role, _ in self._of):
            splits = [split for other, split in self._of if other == role]
            for later, split in enumerate(splits):
                missing = np.ones(len(self._of[role, split][1]), bool)
                for earlier in splits[:later]:
                    found += self._between(role, earlier, split, missing)
        return found

    def _between(self, role, first, second, missing):
        """Duplicates of two splits among the pictures still `missing` [n], which are then struck off."""
        keys, examples = zip(*(self._arrays(role, split) for split in (first, second)), strict=True)
        order = np.argsort(keys[0], kind="stable")
        place = np.searchsorted(keys[0], keys[1], sorter=order)
        candidates = order[np.minimum(place, len(order) - 1)]  # [n] of the second split
        same = (keys[0][candidates] == keys[1]) & missing
        missing &= ~same
        return [
            Duplicate(role, first, int(examples[0][candidates[k]]), second, int(examples[1][k]))
            for k in np.flatnonzero(same)
        ]

    def _arrays(self, role, split):
        digests, examples = self._of[role, split]
        return np.frombuffer(digests, f"V{_DIGEST_BYTES}"), np.frombuffer(examples, np.uint32)
