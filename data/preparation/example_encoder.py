"""Examples on their way into a data set: encoded in threads, refused or counted, compared."""

import array

import tqdm

from data.errors import DataError
from data.preparation.layouts import LAYOUTS, SkippedExample, check_strict
from data.preparation.leakage import Digests
from data.preparation.parallel_map import map_in_order
from data.roles import SIDE_MAP, SIDE_VECTOR
from data.tfrecords import image_encoding


class ExampleEncoder:
    """What becomes of the images while they are stored.

    Attributes:
      kept, re_encoded: number of images stored as the bytes of their file, and of those encoded anew.
      refused: `SkippedExample`s of examples whose images turned out not to be usable.
      stored: split -> numbers, in the survey, of the examples stored.
    """

    def __init__(self, *, layout, survey, reader, strict):
        self._layout, self._survey, self._reader, self._strict = layout, survey, reader, strict
        self._digests = Digests()
        self.kept = self.re_encoded = 0
        self.refused = []
        self.stored = {split: array.array("I") for split in survey.splits}
        total = sum(len(e.images) for examples in survey.splits.values() for e in examples)
        self.progress = tqdm.tqdm(total=total, desc="writing", unit="img", leave=False, disable=None)

    def examples(self, split):
        """Iterates over the examples of a split as they are stored, leaving out what cannot be used."""
        examples = self._survey.splits[split]
        encoded_examples = map_in_order(self._encoded, examples, threads=self._reader.threads)
        for number, (example, encoded) in enumerate(zip(examples, encoded_examples, strict=True)):
            self.progress.update(len(example.images))
            if isinstance(encoded, SkippedExample):
                self.refused.append(encoded)
                if self._strict:
                    check_strict(self.refused)
                continue
            self.stored[split].append(number)
            self._compare(split, number, encoded)
            vector = {} if example.side_vector is None else {SIDE_VECTOR: example.side_vector}
            yield {"name": example.name, **vector} | {f: image.value for f, image in encoded.items()}

    def duplicates(self):
        """Names the pictures that stand in two splits, a line each."""
        return [
            f"{self._name(found.second_split, found.second_example, found.role)} is the same picture as "
            f"{self._name(found.first_split, found.first_example, found.role)}"
            for found in self._digests.duplicates()
        ]

    def _encoded(self, example):
        """{feature: `Encoded`} of an example, or the `SkippedExample` of it."""
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

    def _compare(self, split, number, encoded):
        sides = LAYOUTS[self._layout].sides
        by_side = len(sides) > 1
        split, side = (split[:-1], split[-1]) if by_side else (split, None)
        for feature, image in encoded.items():
            self.kept += image.kept
            self.re_encoded += not image.kept
            if feature == SIDE_MAP:
                continue  # two splits may well have the same
            if feature == "pair":
                half = len(image.digest) // 2
                roles = {"A": image.digest[:half], "B": image.digest[half:]}
            else:
                roles = {side or feature: image.digest}
            for role, digest in roles.items():
                self._digests.add(split, role, number, digest)

    def _name(self, split, number, role):
        """What a user calls the picture: "test/x", with its role if its split has several."""
        if len(LAYOUTS[self._layout].sides) > 1:
            return f"{split}{role}/{self._survey.splits[split + role][number].name}"
        name = f"{split}/{self._survey.splits[split][number].name}"
        return name if self._layout == "single" else f"{role} of {name}"
