"""Encodes the examples of a data set in threads, skips those that cannot be used, and finds duplicates."""

from __future__ import annotations

import array
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import tqdm

from data.errors import DataError
from data.imaging.value_statistics import ValueStatistics
from data.preparation.examples import Example, SkippedExample, check_strict
from data.preparation.layouts import LAYOUTS
from data.preparation.leakage import Digests
from data.preparation.parallel_map import map_in_order
from data.preparation.survey import ImageReader, Survey
from data.roles import SIDE_MAP
from data.tfrecords import image_encoding
from data.tfrecords.label_classes import MOST_CLASSES, Pixels, as_classes, joined


class ExampleEncoder:
    """Encodes the examples of a survey, split by split.

    Args:
      layout: a key of `LAYOUTS`.
      survey: the examples and their formats.
      reader: how images are read.
      strict: an example that cannot be used is an error.
      labels: the images whose values are classes: "A", "B", "side_map". A map whose classes cannot be listed
        is not used; A and B may be blurred, for example by JPEG.

    Attributes:
      kept: number of images stored as the bytes of their file.
      re_encoded: number of images encoded again.
      skipped: examples whose images could not be used.
      stored: split -> indices, in the survey, of the stored examples.
      classes: each of `labels` -> the different pixel values of its images; None if they cannot be listed.
      values: feature -> the values of its stored images.
      progress: bar over all images; the caller closes it.
    """

    def __init__(
        self,
        *,
        layout: str,
        survey: Survey,
        reader: ImageReader,
        strict: bool,
        labels: Sequence[str] = (),
    ):
        self._layout, self._survey, self._reader, self._strict = layout, survey, reader, strict
        self.classes: dict[str, Pixels | None] = dict.fromkeys(labels, frozenset())
        self._digests = Digests()
        self.kept = self.re_encoded = 0
        self.skipped: list[SkippedExample] = []
        self.stored = {split: array.array("I") for split in survey.splits}
        self.values = {feature: ValueStatistics() for feature in survey.formats}
        total = sum(len(e.images) for examples in survey.splits.values() for e in examples)
        self.progress = tqdm.tqdm(total=total, desc="writing", unit="img", leave=False, disable=None)

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Yields the encoded examples of a split, without those that cannot be used."""
        examples = self._survey.splits[split]
        encode = functools.partial(self._encode, split)
        encoded_examples = map_in_order(encode, examples, threads=self._reader.threads)
        for index, (example, encoded) in enumerate(zip(examples, encoded_examples, strict=True)):
            self.progress.update(len(example.images))
            if isinstance(encoded, SkippedExample):
                self.skipped.append(encoded)
                if self._strict:
                    check_strict(self.skipped)
                continue
            self.stored[split].append(index)
            self._count(split, index, encoded)
            images = {feature: image.value for feature, image in encoded.items()}
            yield {"name": example.name, **example.values, **images}

    def duplicates(self) -> list[str]:
        """Returns a line for each image that is in two splits."""
        return [
            f"{self._name(found.second_split, found.second_example, found.role)} is the same image as "
            f"{self._name(found.first_split, found.first_example, found.role)}"
            for found in self._digests.duplicates()
        ]

    def label_metadata(self) -> dict[str, Any]:
        """Returns the entry for the metadata of the data set: the classes of all labels.

        Raises:
          DataError: there are too many classes of maps to make them one-hot.
        """
        if SIDE_MAP in self.classes and self.classes[SIDE_MAP] is None:
            raise DataError(
                f"side_map: has more than {MOST_CLASSES} different values in all, which is too many for "
                "classes; prepare it with --side_map_kind=values"
            )
        return {"labels": {n: as_classes(found) for n, found in self.classes.items()}} if self.classes else {}

    def _encode(self, split: str, example: Example) -> dict[str, image_encoding.Encoded] | SkippedExample:
        """{feature: `Encoded`} of an example."""
        images = {}
        for feature, ref in zip(self._survey.formats, example.images, strict=True):
            try:
                images[feature] = image_encoding.encode(
                    ref,
                    stored=self._survey.formats[feature],
                    video=self._reader.video,
                    max_pixels=self._reader.max_pixels,
                    halves=feature == "pair",
                    labels=[
                        number
                        for number, role in enumerate(self._roles(split, feature))
                        if role in self.classes
                    ],
                )
                if feature == SIDE_MAP and None in images[feature].classes:
                    raise DataError(
                        f"{ref.path}: is a JPEG or has more than {MOST_CLASSES} different values, which are "
                        "no classes; replace it, or prepare the maps with --side_map_kind=values"
                    )
            except DataError as error:
                return SkippedExample(example.name, str(error))
        return images

    def _count(self, split: str, index: int, encoded: dict[str, image_encoding.Encoded]) -> None:
        """Counts the images of an example and adds their digests."""
        for feature, image in encoded.items():
            self.kept += image.kept
            self.re_encoded += not image.kept
            roles = self._roles(split, feature)
            of_labels = [role for role in roles if role in self.classes]
            for role, found in zip(of_labels, image.classes, strict=True):
                self.classes[role] = joined([self.classes[role], found])
            self.values[feature].add(image.values)
            if feature == SIDE_MAP:
                continue  # two splits may share a map
            length = len(image.digest) // len(roles)
            for number, role in enumerate(roles):
                digest = image.digest[number * length : (number + 1) * length]
                self._digests.add(self._without_domain(split), role, index, digest)

    def _roles(self, split: str, feature: str) -> tuple[str, ...]:
        """The images in a feature: ("A", "B") in a pair, the domain of unpaired ones, or the feature."""
        if feature == "pair":
            return ("A", "B")
        return (split[-1],) if len(LAYOUTS[self._layout].domains) > 1 else (feature,)

    def _without_domain(self, split: str) -> str:
        return split[:-1] if len(LAYOUTS[self._layout].domains) > 1 else split

    def _name(self, split: str, index: int, role: str) -> str:
        """The name of an image for the user: "test/x", with its role if the split has several."""
        if len(LAYOUTS[self._layout].domains) > 1:
            return f"{split}{role}/{self._survey.splits[split + role][index].name}"
        name = f"{split}/{self._survey.splits[split][index].name}"
        return name if self._layout == "single" else f"{role} of {name}"
