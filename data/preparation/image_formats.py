"""Chooses one stored format per feature from the headers of all its images."""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence

from data.errors import DataError
from data.formats.image_info import ImageInfo
from data.preparation.examples import Example
from data.tfrecords.image_encoding import StoredFormat, common_format

ValueRange = tuple[float, float]


_MOST_PATHS = 5


class _Count(typing.NamedTuple):
    """How many images have the same `ImageInfo`, and the paths of the first of them."""

    paths: tuple[str, ...]
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
            _count(
                self._counts[feature, domain], dataclasses.replace(info, height=1, width=1), (ref.path,), 1
            )

    def with_dtype(self, features: Iterable[str], dtype: str) -> list[str]:
        """The features that have images of a dtype."""
        return [feature for feature in features if dtype in {info.dtype for info in self._of(feature)}]

    def with_alpha(self, features: Iterable[str]) -> list[str]:
        """The features of which some image has an alpha channel, so that all are stored with one."""
        return [feature for feature in features if any(info.alpha for info in self._of(feature))]

    def without_range(self, features: Iterable[str], value_range: ValueRange | None) -> list[str]:
        """The features whose value range is not that of their dtype.

        Args:
          features: some of the features.
          value_range: that the user gave, or None.

        Returns:
          Those with float32 images. If there are none and a range is given: those with uint16 images; if
          there are none of these either, all.
        """
        features = list(features)
        found = self.with_dtype(features, "float32")
        if not found and value_range is not None:
            return self.with_dtype(features, "uint16") or features
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

    def minorities(self) -> list[str]:
        """Lines about images that add alpha, colour or depth to all others of their feature, and their paths.

        Colour and depth are mentioned only where they are those of the minority.
        """
        lines = []
        for (feature, domain), counts in sorted(self._counts.items()):
            name = domain or feature
            total = sum(count.images for count in counts.values())
            for kind in _KINDS:
                found = [count for info, count in counts.items() if kind.has(info)]
                images = sum(count.images for count in found)
                if not 0 < images < (total if kind.always else (total + 1) // 2):
                    continue
                stored = _common_format(counts, (0.0, 1.0) if _has_floats(counts) else None)
                what, remedy = kind.one if images == 1 else kind.several
                lines.append(
                    f"{name}: {images} of {total} images {what}, so all are stored as {stored.dtype} with "
                    f"{stored.channels} channel{'' if stored.channels == 1 else 's'}; {remedy}:"
                )
                paths = [path for count in found for path in count.paths][:_MOST_PATHS]
                lines += [f"  {path}" for path in paths]
                if images > len(paths):
                    lines.append(f"  and {images - len(paths)} more")
        return lines

    def _of(self, feature: str) -> dict[ImageInfo, _Count]:
        """The counts of a feature over all domains."""
        found: dict[ImageInfo, _Count] = {}
        for (other, _), counts in self._counts.items():
            if other == feature:
                for info, (paths, images) in counts.items():
                    _count(found, info, paths, images)
        return found


class _Kind(typing.NamedTuple):
    """A property of an image that all images of its feature are stored with.

    Attributes:
      has: whether an image has it.
      one: what one image does, and how to mend it.
      several: the same of several images.
      always: mention it even if most images have it.
    """

    has: Callable[[ImageInfo], bool]
    one: tuple[str, str]
    several: tuple[str, str]
    always: bool = False


_KINDS = (
    _Kind(
        has=lambda info: info.alpha,
        one=("uses its alpha channel", "to store no alpha, flatten it onto a background and prepare again"),
        several=(
            "use their alpha channel",
            "to store no alpha, flatten them onto a background and prepare again",
        ),
        always=True,
    ),
    _Kind(
        has=lambda info: info.channels - info.alpha == 3,
        one=("is in colour", "to store grey, convert it and prepare again"),
        several=("are in colour", "to store grey, convert them and prepare again"),
    ),
    _Kind(
        has=lambda info: info.dtype == "uint16",
        one=("has 16 bits", "to store 8 bits, convert it and prepare again"),
        several=("have 16 bits", "to store 8 bits, convert them and prepare again"),
    ),
)


def _has_floats(counts: Iterable[ImageInfo]) -> bool:
    return any(info.dtype == "float32" for info in counts)


def _count(counts: dict[ImageInfo, _Count], info: ImageInfo, paths: tuple[str, ...], images: int) -> None:
    before = counts.get(info, _Count((), 0))
    counts[info] = _Count((*before.paths, *paths)[:_MOST_PATHS], before.images + images)


def _common_format(counts: Mapping[ImageInfo, _Count], value_range: ValueRange | None) -> StoredFormat:
    """The format of all images; an error names an image of the rarest kind and one of the commonest."""
    try:
        return common_format(list(counts), value_range=value_range)
    except DataError as error:
        rarest, commonest = _extreme(min, counts), _extreme(max, counts)
        beside = f" (beside {commonest})" if len(counts) > 1 else ""
        raise DataError(f"{rarest}{beside}: {error}") from error


def _extreme(choose: Callable[..., _Count], counts: Mapping[ImageInfo, _Count]) -> str:
    return choose(counts.values(), key=lambda count: count.images).paths[0]
