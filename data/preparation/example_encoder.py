"""Encodes the examples of a data set in threads, skips those that cannot be used, and finds duplicates."""

from __future__ import annotations

import array
from collections.abc import Iterator
from typing import Any

import tqdm

from data.errors import DataError
from data.imaging.value_statistics import ValueStatistics
from data.preparation.layouts import LAYOUTS, Example, SkippedExample, check_strict
from data.preparation.leakage import Digests
from data.preparation.parallel_map import map_in_order
from data.preparation.survey import ImageReader, Survey
from data.roles import SIDE_MAP, SIDE_VECTOR
from data.tfrecords import image_encoding


class ExampleEncoder:
    """Encodes the examples of a survey, split by split.

    Args:
      layout: a key of `LAYOUTS`.
      survey: the examples and their formats.
      reader: how images are read.
      strict: an example that cannot be used is an error.

    Attributes:
      kept: number of images stored as the bytes of their file.
      re_encoded: number of images encoded again.
      skipped: examples whose images could not be used.
      stored: split -> indices, in the survey, of the stored examples.
      values: feature -> the values of its stored images.
      progress: bar over all images; the caller closes it.
    """

    def __init__(self, *, layout: str, survey: Survey, reader: ImageReader, strict: bool):
        self._layout, self._survey, self._reader, self._strict = layout, survey, reader, strict
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
        encoded_examples = map_in_order(self._encode, examples, threads=self._reader.threads)
        for index, (example, encoded) in enumerate(zip(examples, encoded_examples, strict=True)):
            self.progress.update(len(example.images))
            if isinstance(encoded, SkippedExample):
                self.skipped.append(encoded)
                if self._strict:
                    check_strict(self.skipped)
                continue
            self.stored[split].append(index)
            self._count(split, index, encoded)
            vector = {} if example.side_vector is None else {SIDE_VECTOR: example.side_vector}
            yield {"name": example.name, **vector} | {f: image.value for f, image in encoded.items()}

    def duplicates(self) -> list[str]:
        """Returns a line for each image that is in two splits."""
        return [
            f"{self._name(found.second_split, found.second_example, found.role)} is the same image as "
            f"{self._name(found.first_split, found.first_example, found.role)}"
            for found in self._digests.duplicates()
        ]

    def _encode(self, example: Example) -> dict[str, image_encoding.Encoded] | SkippedExample:
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
                )
            except DataError as error:
                return SkippedExample(example.name, str(error))
        return images

    def _count(self, split: str, index: int, encoded: dict[str, image_encoding.Encoded]) -> None:
        """Counts the images of an example and adds their digests."""
        domain = None
        if len(LAYOUTS[self._layout].domains) > 1:
            split, domain = split[:-1], split[-1]
        for feature, image in encoded.items():
            self.kept += image.kept
            self.re_encoded += not image.kept
            self.values[feature].add(image.values)
            if feature == SIDE_MAP:
                continue  # two splits may share a map
            if feature == "pair":
                half = len(image.digest) // 2
                roles = {"A": image.digest[:half], "B": image.digest[half:]}
            else:
                roles = {domain or feature: image.digest}
            for role, digest in roles.items():
                self._digests.add(split, role, index, digest)

    def _name(self, split: str, index: int, role: str) -> str:
        """The name of an image for the user: "test/x", with its role if the split has several."""
        if len(LAYOUTS[self._layout].domains) > 1:
            return f"{split}{role}/{self._survey.splits[split + role][index].name}"
        name = f"{split}/{self._survey.splits[split][index].name}"
        return name if self._layout == "single" else f"{role} of {name}"
