"""Reads all headers before the first image is written: sizes, and one format per feature."""

from __future__ import annotations

import array
import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from data import gfile
from data.errors import DataError
from data.formats import image_reader
from data.formats.image_info import ImageInfo, ImageRef
from data.formats.raw_video import VideoFormat
from data.preparation.examples import Example, SkippedExample
from data.preparation.image_formats import FeatureInfos, ValueRange
from data.preparation.layouts import LAYOUTS
from data.preparation.parallel_map import map_in_order
from data.roles import SIDE_MAP
from data.tfrecords.image_encoding import StoredFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReader:
    """How images are read.

    Attributes:
      video: how raw video is read.
      max_pixels: an image with more pixels is skipped before it is decoded.
      value_range: (lowest, highest) value of float32 images, measured if None. If there are no float32
        images, it is the range of uint16 images that use a part of theirs; if there are none of these
        either, that of uint8 images, such as class ids. Or {feature: (lowest, highest)}, maps included.
      threads: images read in parallel.

    Raises:
      DataError: a field is out of range.
    """

    video: VideoFormat = dataclasses.field(default_factory=VideoFormat)
    max_pixels: int = image_reader.MAX_PIXELS
    value_range: ValueRange | Mapping[str, ValueRange] | None = None
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        for name in ("max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} = {getattr(self, name)}: must be at least 1; change it")
        for low, high in [*self.named_ranges.values(), *filter(None, [self.common_range])]:
            if not low < high:
                raise DataError(
                    f"value_range = ({low:g}, {high:g}): the first must be less than the second; change it"
                )

    @property
    def named_ranges(self) -> Mapping[str, ValueRange]:
        """The ranges that are given for a feature each."""
        return self.value_range if isinstance(self.value_range, Mapping) else {}

    @property
    def common_range(self) -> ValueRange | None:
        """The range that is given for all features it applies to."""
        return None if isinstance(self.value_range, Mapping) else self.value_range

    def info(self, ref: ImageRef) -> ImageInfo:
        """Reads the header of an image."""
        return image_reader.read_info(ref, video=self.video, max_pixels=self.max_pixels)

    def pixels(self, ref: ImageRef) -> np.ndarray:
        """Decodes an image: [H, W, C]."""
        return image_reader.read_pixels(ref, video=self.video, max_pixels=self.max_pixels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """The examples that can be stored, as far as their headers tell, and the formats they are stored in.

    Attributes:
      splits: split -> examples.
      sizes: split -> height and width of each example's images (halves, of layout side_by_side), one after
        the other.
      record_bytes: split -> expected mean size of an example.
      formats: feature -> format of its images.
      domain_channels: {"A", "B": channels} of layout unpaired; empty if they are equal.
      with_alpha: features whose images are stored with an alpha channel.
      measured: features whose value range was measured.
      given: features whose value range the user gave -> that range.
      minorities: lines about images that add alpha, colour or depth to all others of their feature.
      skipped: examples that cannot be used.
    """

    splits: Mapping[str, list[Example]]
    sizes: Mapping[str, array.array]
    record_bytes: Mapping[str, float]
    formats: Mapping[str, StoredFormat]
    domain_channels: Mapping[str, int]
    with_alpha: tuple[str, ...]
    measured: tuple[str, ...]
    given: Mapping[str, ValueRange]
    minorities: tuple[str, ...]
    skipped: list[SkippedExample]

    def smallest(self, stored: Mapping[str, Sequence[int]]) -> dict[str, dict]:
        """Returns {"smallest_height", "smallest_width": {"pixels", "name"}} of some examples.

        Args:
          stored: split -> indices of examples; at least one in all.
        """
        found = {}
        for axis, key in enumerate(("smallest_height", "smallest_width")):
            pixels, split, index = min(
                (self.sizes[split][2 * index + axis], split, index)
                for split, indices in stored.items()
                for index in indices
            )
            found[key] = {"pixels": pixels, "name": self.splits[split][index].name}
        return found

    def edges(self, stored: Mapping[str, Sequence[int]]) -> tuple[int, int]:
        """Returns the (shortest, longest) height or width of some examples; arguments as of `smallest`."""
        edges = [
            self.sizes[split][2 * index + axis]
            for split, indices in stored.items()
            for index in indices
            for axis in (0, 1)
        ]
        return min(edges), max(edges)


def survey(
    *, layout: str, splits: Mapping[str, list[Example]], reader: ImageReader, has_maps: bool = False
) -> Survey:
    """Reads the headers of all images and chooses the formats.

    Args:
      layout: a key of `LAYOUTS`.
      splits: split -> examples.
      reader: how images are read. Its value range applies to maps only if it names them.
      has_maps: whether the last image of every example is its map.

    Returns:
      A `Survey`.

    Raises:
      DataError: no format fits all images of a feature.
    """
    features = LAYOUTS[layout].features + ((SIDE_MAP,) if has_maps else ())
    headers = _Headers(FeatureInfos(features, LAYOUTS[layout].domains))
    with _progress("reading headers", splits) as bar:
        for split, examples in splits.items():
            headers.read_split(split, examples, layout=layout, reader=reader, bar=bar)
    formats: dict[str, StoredFormat] = {}
    measured: list[str] = []
    channels: dict[str, int] = {}
    given: dict[str, ValueRange] = {}
    if any(headers.splits.values()):
        ranges = _ranges(headers.infos, LAYOUTS[layout].features, reader, has_maps=has_maps)
        given = {feature: found for feature, found in ranges.items() if found is not None}
        for index, feature in enumerate(features):
            if feature in ranges and ranges[feature] is None:
                ranges[feature] = _measure(headers.splits, index, reader)
                measured.append(feature)
            formats[feature] = headers.infos.format_of(feature, ranges.get(feature))
        if len(LAYOUTS[layout].domains) > 1:
            channels = headers.infos.domain_channels(ranges.get(features[0]))
    return Survey(
        splits={split: examples for split, examples in headers.splits.items() if examples},
        sizes=headers.sizes,
        record_bytes=headers.record_bytes,
        formats=formats,
        domain_channels=channels,
        with_alpha=tuple(headers.infos.with_alpha(formats)),
        measured=tuple(measured),
        given=given,
        minorities=tuple(headers.infos.minorities()),
        skipped=headers.skipped,
    )


def _ranges(
    infos: FeatureInfos, image_features: Sequence[str], reader: ImageReader, *, has_maps: bool
) -> dict[str, ValueRange | None]:
    """{feature: its value range} where it is not that of the dtype; None if it has to be measured."""
    named = reader.named_ranges
    known = [*image_features, *([SIDE_MAP] if has_maps else [])]
    for feature in named:
        if feature not in known:
            raise DataError(
                f"value_range: names {feature!r}, but the images are {', '.join(known)}; correct it"
            )
    others = [feature for feature in image_features if feature not in named]
    without_range = infos.without_range(others, reader.common_range)
    ranges: dict[str, ValueRange | None] = dict.fromkeys(without_range, reader.common_range)
    if has_maps:
        ranges.update(dict.fromkeys(infos.with_dtype([SIDE_MAP], "float32")))
    return {**ranges, **named}


class _ExampleInfo(typing.NamedTuple):
    """What the headers of one example say: its images, their common size, its expected bytes."""

    images: list[ImageInfo]
    size: tuple[int, int]
    expected_bytes: int


class _Headers:
    """What the headers of all examples say; the fields are those of `Survey`."""

    def __init__(self, infos: FeatureInfos):
        self.infos = infos
        self.splits: dict[str, list[Example]] = {}
        self.sizes: dict[str, array.array] = {}
        self.record_bytes: dict[str, float] = {}
        self.skipped: list[SkippedExample] = []

    def read_split(
        self, split: str, examples: Sequence[Example], *, layout: str, reader: ImageReader, bar: tqdm.tqdm
    ) -> None:
        """Reads the headers of a split in threads."""

        def read(example: Example) -> _ExampleInfo | SkippedExample:
            try:
                infos = [reader.info(ref) for ref in example.images]
                return _ExampleInfo(
                    infos, _common_size(layout, example, infos), _expected_bytes(example, infos)
                )
            except DataError as error:
                return SkippedExample(example.name, str(error))

        self.splits[split], self.sizes[split], total_bytes = [], array.array("I"), 0
        results = map_in_order(read, examples, threads=reader.threads)
        for example, result in zip(examples, results, strict=True):
            bar.update(len(example.images))
            if isinstance(result, SkippedExample):
                self.skipped.append(result)
                continue
            self.splits[split].append(example)
            self.sizes[split].extend(result.size)
            self.infos.add(split, example, result.images)
            total_bytes += result.expected_bytes
        self.record_bytes[split] = total_bytes / max(1, len(self.splits[split]))


def _common_size(layout: str, example: Example, infos: Sequence[ImageInfo]) -> tuple[int, int]:
    """(height, width) of all images of an example; of either half, of layout side_by_side."""
    first = infos[0]
    height, width = first.height, first.width
    if layout == "side_by_side":
        if first.width % 2:
            raise DataError(
                f"{example.images[0].path}: is {first.width} pixels wide and cannot be cut into two "
                "halves; layout side_by_side needs an even width"
            )
        width = first.width // 2
    images = len(LAYOUTS[layout].features)
    for index, (ref, info) in list(enumerate(zip(example.images, infos, strict=True)))[1:]:
        if (info.height, info.width) == (height, width):
            continue
        if index >= images:
            raise DataError(
                f"{ref.path}: is a map of {info.width}x{info.height} for images of {width}x{height}; "
                "give both the same size"
            )
        raise DataError(
            f"{example.images[0].path}: is {width}x{height}, but its partner {ref.path} is "
            f"{info.width}x{info.height}; give both images of a pair the same size"
        )
    return height, width


def _expected_bytes(example: Example, infos: Sequence[ImageInfo]) -> int:
    """The approximate size of an example on disk: of its files, or of its pixels if smaller (video)."""
    return sum(
        min(
            gfile.size_and_mtime(ref.path)[0],
            info.height * info.width * info.channels * np.dtype(info.dtype).itemsize,
        )
        for ref, info in zip(example.images, infos, strict=True)
    )


def _measure(splits: Mapping[str, list[Example]], index: int, reader: ImageReader) -> ValueRange:
    """Decodes image number `index` of every example; returns the (lowest, highest) value."""

    def extremes(example: Example) -> ValueRange | None:
        try:
            pixels = reader.pixels(example.images[index])
        except DataError:
            return None  # the encoder skips the example and reports the error
        finite = pixels[np.isfinite(pixels)]
        return (float(finite.min()), float(finite.max())) if finite.size else None

    low, high = np.inf, -np.inf
    with _progress("measuring values", splits, images=1) as bar:
        for examples in splits.values():
            for found in map_in_order(extremes, examples, threads=reader.threads):
                bar.update()
                if found:
                    low, high = min(low, found[0]), max(high, found[1])
    if not low < high:
        return (low, low + max(1.0, abs(low))) if low == high else (0.0, 1.0)
    return low, high


def _progress(text: str, splits: Mapping[str, list[Example]], images: int | None = None) -> tqdm.tqdm:
    """A progress bar over all images, or over `images` of each example."""
    total = sum(images or len(example.images) for examples in splits.values() for example in examples)
    return tqdm.tqdm(total=total, desc=text, unit="img", leave=False, disable=None)
