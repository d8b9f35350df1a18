"""Which row or file belongs to which example, by the names that users write."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from data.errors import DataError
from data.formats.image_reader import is_image_name
from data.preparation.csv_rows import listed
from data.preparation.splits import Source


class RowKeys:
    """Finds the example of each row or map.

    A key is "NAME" or "SPLIT/NAME", where NAME is the name of an example or of its file.

    Args:
      found: the examples.
      keys: of the rows or maps.
      where: file or folder of the keys, named in errors.

    Attributes:
      key_of: (split, name of an example) -> its key.
      missing: (split, name) of the examples without a key.
      superfluous: keys that no example has; skipped ones count as examples.

    Raises:
      DataError: a key without a split is the name of examples in several splits, or two keys are one name.
    """

    def __init__(self, found: Source, keys: Iterable[str], *, where: str):
        splits_of: dict[str, list[str]] = {}
        for split, examples in found.splits.items():
            for example in examples:
                splits_of.setdefault(example.name, []).append(split)
        unused = {skipped.name for skipped in found.skipped} | set(found.unlisted)
        self._where = where
        key_named = self._by_name(keys, splits_of.keys() | unused)
        self.key_of: dict[tuple[str, str], str] = {}
        self.missing: list[tuple[str, str]] = []
        for name, splits in splits_of.items():
            for split in splits:
                key = key_named.get(f"{split}/{name}")
                if key is None and name in key_named:
                    _check_unambiguous(name, splits, where)
                    key = key_named[name]
                if key is None:
                    self.missing.append((split, name))
                else:
                    self.key_of[split, name] = key
        used = set(self.key_of.values())
        self.superfluous = [
            key
            for name, key in key_named.items()
            if key not in used and not {name, name.partition("/")[2]} & unused
        ]

    def check_rows(self, *, header: str) -> None:
        """Raises a `DataError` if a row is missing or superfluous.

        Args:
          header: what makes a row a header.
        """
        if self.missing:
            missing = [name for _, name in self.missing]
            raise DataError(
                f"{self._where}: has no row for {listed(missing, 'example')}; add what is missing"
            )
        if self.superfluous:
            raise DataError(
                f"{self._where}: has rows for {listed(self.superfluous, 'name')} that no example has; remove "
                f"them (a header {header})"
            )

    def _by_name(self, keys: Iterable[str], known: Collection[str]) -> dict[str, str]:
        """{a key without the extension of an image file: that key}."""
        key_named: dict[str, str] = {}
        for key in keys:
            name = example_name(key, known)
            if name in key_named:
                raise DataError(
                    f"{self._where}: {key_named[name]} and {key} name the same example; keep one of them"
                )
            key_named[name] = key
        return key_named


def _check_unambiguous(name: str, splits: Sequence[str], where: str) -> None:
    if len(splits) > 1:
        raise DataError(
            f"{where}: {name!r} is the name of examples in {' and '.join(splits)}; name them "
            f"{splits[0]}/{name} and so on"
        )


def example_name(key: str, known: Collection[str]) -> str:
    """Returns a key without the extension of an image file, unless an example has that name.

    Args:
      key: "NAME" or "SPLIT/NAME", where NAME is the name of an example or of its file.
      known: names of examples.
    """
    is_known = key in known or key.partition("/")[2] in known
    return key if is_known or not is_image_name(key) else os.path.splitext(key)[0]
