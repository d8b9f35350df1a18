"""What must be known of all images before the first is written: sizes, and one format for each feature."""

import array
import collections
import dataclasses
import os
from collections.abc import Mapping

import numpy as np
import tqdm

from data import gfile
from data.errors import DataError
from data.formats import image_reader
from data.formats.raw_video import VideoFormat
from data.preparation.layouts import LAYOUTS, Example, SkippedExample
from data.preparation.parallel_map import map_in_order
from data.roles import SIDE_MAP
from data.tfrecords.image_encoding import StoredFormat, common_format


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReader:
    """How images are read.

    Attributes:
      video: how raw video is read.
      max_pixels: an image of more is refused from its header, before it is decoded.
      value_range: (lowest, highest) value of float32 images, measured when None; if there are none, of
        uint16 images that use a part of their range.
      threads: images read at a time.
    """

    video: VideoFormat = dataclasses.field(default_factory=VideoFormat)
    max_pixels: int = image_reader.MAX_PIXELS
    value_range: tuple[float, float] | None = None
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self):
        for name in ("max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise DataError(f"value_range = {self.value_range}: the first must be less than the second")

    def kind(self, ref):
        """The `ImageInfo` of an `ImageRef`."""
        return image_reader.read_info(ref, video=self.video, max_pixels=self.max_pixels)

    def pixels(self, ref):
        """The pixels of an `ImageRef`: [H, W, C]."""
        return image_reader.read_pixels(ref, video=self.video, max_pixels=self.max_pixels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """The examples that can be stored, as far as headers tell, and how.

    Attributes:
      splits: split -> examples.
      sizes: split -> heights and widths of the (halves of) images, one after the other.
      record_bytes: split -> expected mean size of an example.
      formats: feature -> how its images are stored.
      domain_channels: {"A", "B": channels} of a layout whose sides are splits; empty if they agree.
      measured: features whose value range was measured.
      refused: examples left out.
    """

    splits: Mapping[str, list[Example]]
    sizes: Mapping[str, array.array]
    record_bytes: Mapping[str, float]
    formats: Mapping[str, StoredFormat]
    domain_channels: Mapping[str, int]
    measured: tuple[str, ...]
    refused: list[SkippedExample]

    def smallest(self, stored):
        """{"smallest_height", "smallest_width": {"pixels", "name"}} of some examples.

        Args:
          stored: split -> numbers of the examples; not all empty.
        """
        found = {}
        for axis, side in enumerate(("smallest_height", "smallest_width")):
            pixels, split, number = min(
                (self.sizes[split][2 * number + axis], split, number)
                for split, numbers in stored.items()
                for number in numbers
            )
            found[side] = {"pixels": pixels, "name": self.splits[split][number].name}
        return found

    def sides(self, stored):
        """(shortest, longest) side in pixels of some examples, given as to `smallest`."""
        sides = [
            self.sizes[split][2 * number + axis]
            for split, numbers in stored.items()
            for number in numbers
            for axis in (0, 1)
        ]
        return min(sides), max(sides)


def survey(*, layout, splits, reader, has_maps=False):
    """Reads the headers of all images.

    Args:
      layout: a key of `LAYOUTS`.
      splits: split -> list of `Example`.
      reader: an `ImageReader`; its value range is not for maps, whose own is measured.
      has_maps: the last image of every example is its map.

    Returns:
      A `Survey`.

    Raises:
      DataError: the images of a feature cannot be of one format.
    """
    kinds = _Kinds()
    features = LAYOUTS[layout].features + ((SIDE_MAP,) if has_maps else ())
    refused, kept, sizes, record_bytes = [], {}, {}, {}

    def look(example):
        try:
            found = [reader.kind(ref) for ref in example.images]
            return found, _image_size(layout, example, found), _expected_bytes(example, found)
        except DataError as error:
            return SkippedExample(example.name, str(error))

    with _progress("looking", splits) as bar:
        for split, examples in splits.items():
            kept[split], sizes[split], total_bytes = [], array.array("I"), 0
            looked = map_in_order(look, examples, threads=reader.threads)
            for example, seen in zip(examples, looked, strict=True):
                bar.update(len(example.images))
                if isinstance(seen, SkippedExample):
                    refused.append(seen)
                    continue
                kept[split].append(example)
                sizes[split].extend(seen[1])
                total_bytes += seen[2]
                kinds.add(layout, features, split, example, seen[0])
            record_bytes[split] = total_bytes / max(1, len(kept[split]))
    formats, measured, domain_channels = {}, [], {}
    if any(kept.values()):
        ranges = dict.fromkeys(kinds.without_range(LAYOUTS[layout].features, reader), reader.value_range)
        if has_maps:
            ranges |= dict.fromkeys(kinds.with_dtype([SIDE_MAP], "float32"))
        for number, feature in enumerate(features):
            if feature in ranges and ranges[feature] is None:
                ranges[feature] = _measure(kept, number, reader)
                measured.append(feature)
            formats[feature] = kinds.format_of(feature, ranges.get(feature))
        if len(LAYOUTS[layout].sides) > 1:
            domain_channels = kinds.domain_channels(ranges.get(features[0]))
    return Survey(
        splits={split: examples for split, examples in kept.items() if examples},
        sizes=sizes,
        record_bytes=record_bytes,
        formats=formats,
        domain_channels=domain_channels,
        measured=tuple(measured),
        refused=refused,
    )


class _Kinds:
    """The distinct kinds, whatever their size, of the images of each feature and side, and a file of each."""

    def __init__(self):
        self._of = collections.defaultdict(dict)  # (feature, side) -> {kind: [path, number of images]}

    def add(self, layout, features, split, example, kinds):
        side = split[-1] if len(LAYOUTS[layout].sides) > 1 else ""
        for feature, ref, kind in zip(features, example.images, kinds, strict=True):
            kind = dataclasses.replace(kind, height=1, width=1)
            self._of[feature, side].setdefault(kind, [ref.path, 0])[1] += 1

    def with_dtype(self, features, dtype):
        """The features that have images of a dtype."""
        return [feature for feature in features if dtype in {kind.dtype for kind in self._files(feature)}]

    def without_range(self, features, reader):
        """The features whose range is not in the headers: float32, else uint16 if a range is given."""
        found = self.with_dtype(features, "float32")
        if not found and reader.value_range is not None:
            found = self.with_dtype(features, "uint16")
            if not found:
                raise DataError(
                    "value_range: is for float32 and uint16 images, and there are none; leave it out"
                )
        return found

    def format_of(self, feature, value_range):
        """The `StoredFormat` of a feature."""
        return self._common(self._files(feature), value_range)

    def domain_channels(self, value_range):
        """{side: channels} where the sides of the one feature differ; they must have one dtype."""
        formats = {side: self._common(files, value_range) for (_, side), files in self._of.items()}
        if len({stored.dtype for stored in formats.values()}) > 1:
            said = ", ".join(f"{side} {stored.dtype}" for side, stored in sorted(formats.items()))
            raise DataError(f"A, B: have different types of values ({said}); convert one side")
        channels = {side: stored.channels for side, stored in sorted(formats.items())}
        return channels if len(set(channels.values())) > 1 else {}

    def _files(self, feature):
        found = {}
        for (other, _), of_side in self._of.items():
            if other == feature:
                for kind, (path, count) in of_side.items():
                    found.setdefault(kind, [path, 0])[1] += count
        return found

    def _common(self, files, value_range):
        try:
            return common_format(list(files), value_range=value_range)
        except DataError as error:
            rarest, commonest = (choose(files.values(), key=lambda f: f[1])[0] for choose in (min, max))
            beside = f" (beside {commonest})" if len(files) > 1 else ""
            raise DataError(f"{rarest}{beside}: {error}") from error


def _image_size(layout, example, kinds):
    """(height, width) of the images of an example: of either half, or of all files."""
    first = kinds[0]
    height, width = first.height, first.width
    if layout == "side_by_side":
        if first.width % 2:
            raise DataError(
                f"{example.images[0].path}: is {first.width} pixels wide and cannot be cut into two "
                "halves; layout side_by_side needs an even width"
            )
        width = first.width // 2
    images = len(LAYOUTS[layout].features)
    for number, (ref, kind) in list(enumerate(zip(example.images, kinds, strict=True)))[1:]:
        if (kind.height, kind.width) == (height, width):
            continue
        if number >= images:
            raise DataError(
                f"{ref.path}: is a map of {kind.width}x{kind.height} for images of {width}x{height}; "
                "they must be of one size"
            )
        raise DataError(
            f"{example.images[0].path}: is {width}x{height}, but its partner {ref.path} is "
            f"{kind.width}x{kind.height}; the two of a pair must be of one size"
        )
    return height, width


def _expected_bytes(example, kinds):
    """About what an example takes on disk: its files, or its pixels if they take less (frames of a video)."""
    return sum(
        min(
            gfile.size_and_mtime(ref.path)[0],
            kind.height * kind.width * kind.channels * np.dtype(kind.dtype).itemsize,
        )
        for ref, kind in zip(example.images, kinds, strict=True)
    )


def _measure(splits, number, reader):
    """(lowest, highest) value of all images number `number` of the examples; decodes them all."""

    def extremes(example):
        try:
            pixels = reader.pixels(example.images[number])
        except DataError:
            return None  # refused when it is written
        finite = pixels[np.isfinite(pixels)]
        return (float(finite.min()), float(finite.max())) if finite.size else None

    low, high = np.inf, -np.inf
    with _progress("measuring", splits, images=1) as bar:
        for examples in splits.values():
            for found in map_in_order(extremes, examples, threads=reader.threads):
                bar.update()
                if found:
                    low, high = min(low, found[0]), max(high, found[1])
    if not low < high:
        return (low, low + max(1.0, abs(low))) if low == high else (0.0, 1.0)
    return low, high


def _progress(what, splits, images=None):
    """A progress bar over all images, or over `images` of each example."""
    total = sum(images or len(example.images) for examples in splits.values() for example in examples)
    return tqdm.tqdm(total=total, desc=what, unit="img", leave=False, disable=None)
