"""Chooses one stored format per feature from the headers of all its images."""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence

from data.errors import DataError
from data.formats.image_info import ImageInfo
from data.preparation.layouts import Example
from data.tfrecords.image_encoding import StoredFormat, common_format

ValueRange = tuple[float, float]


class _Count(typing.NamedTuple):
    """How many images have the same `ImageInfo`, and the path of one of them."""

    path: str
    images: int


class FeatureInfos:
    """The distinct `ImageInfo`s, apart from the size, of each feature and domain.

    Args:
      features: of an example, in the order of its images.
      domains: that are splits of their own: "A" and "B" of layout unpaired, else "".
    """

    def __init__(self, features: Sequence[str], domains: Sequence[str]):
        self._features, self._domains = features, domains
        # (feature, domain) -> {info: count}
        self._counts: dict[tuple[str, str], dict[ImageInfo, _Count]] = collections.defaultdict(dict)

    def add(self, split: str, example: Example, infos: Iterable[ImageInfo]) -> None:
        """Counts the images of an example of a split."""
        domain = split[-1] if len(self._domains) > 1 else ""
        for feature, ref, info in zip(self._features, example.images, infos, strict=True):
            _count(self._counts[feature, domain], dataclasses.replace(info, height=1, width=1), ref.path, 1)

    def with_dtype(self, features: Iterable[str], dtype: str) -> list[str]:
        """The features that have images of a dtype."""
        return [feature for feature in features if dtype in {info.dtype for info in self._of(feature)}]

    def without_range(self, features: Iterable[str], value_range: ValueRange | None) -> list[str]:
        """The features whose value range is not that of their dtype.

        Args:
          features: some of the features.
          value_range: that the user gave, or None.

        Returns:
          Those with float32 images; if there are none and a range is given, those with uint16 images.

        Raises:
          DataError: a range is given and there are no such images.
        """
        features = list(features)
        found = self.with_dtype(features, "float32")
        if not found and value_range is not None:
            found = self.with_dtype(features, "uint16")
            if not found:
                raise DataError(
                    "value_range: is for float32 and uint16 images, and there are none; leave it out"
                )
        return found

    def format_of(self, feature: str, value_range: ValueRange | None) -> StoredFormat:
        """The format that stores all images of a feature."""
        return _common_format(self._of(feature), value_range)

    def domain_channels(self, value_range: ValueRange | None) -> dict[str, int]:
        """{domain: channels} if the domains differ in them, else {}; they must have one dtype."""
        formats = {
            domain: _common_format(counts, value_range)
            for (_, domain), counts in sorted(self._counts.items())
        }
        if len({stored.dtype for stored in formats.values()}) > 1:
            dtypes = ", ".join(f"{domain} {stored.dtype}" for domain, stored in formats.items())
            raise DataError(f"A, B: have different types of values ({dtypes}); convert one of them")
        channels = {domain: stored.channels for domain, stored in formats.items()}
        return channels if len(set(channels.values())) > 1 else {}

    def _of(self, feature: str) -> dict[ImageInfo, _Count]:
        """The counts of a feature over all domains."""
        found: dict[ImageInfo, _Count] = {}
        for (other, _), counts in self._counts.items():
            if other == feature:
                for info, (path, images) in counts.items():
                    _count(found, info, path, images)
        return found


def _count(counts: dict[ImageInfo, _Count], info: ImageInfo, path: str, images: int) -> None:
    first = counts.get(info, _Count(path, 0))
    counts[info] = first._replace(images=first.images + images)


def _common_format(counts: Mapping[ImageInfo, _Count], value_range: ValueRange | None) -> StoredFormat:
    """The format of all images; an error names an image of the rarest kind and one of the commonest."""
    try:
        return common_format(list(counts), value_range=value_range)
    except DataError as error:
        rarest, commonest = _extreme(min, counts), _extreme(max, counts)
        beside = f" (beside {commonest})" if len(counts) > 1 else ""
        raise DataError(f"{rarest}{beside}: {error}") from error


def _extreme(choose: Callable[..., _Count], counts: Mapping[ImageInfo, _Count]) -> str:
    return choose(counts.values(), key=lambda count: count.images).path
