"""Pairs of pictures in two folders, as data for the evaluation of a run."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from data import gfile, imaging
from data.errors import DataError
from data.preparation.layouts import Example, FolderReader
from data.roles import INPUT, SIDE_MAP, SIDE_VECTOR, TARGET
from engine.input_pipeline.pictures import to_network
from engine.input_pipeline.recorded_data import RecordedData, describe
from engine.pictures.example_geometry import ExampleGeometry
from engine.pictures.picture_input import Picture
from engine.pictures.picture_log import print_refused
from engine.pictures.role_format import role_format
from engine.pictures.side_inputs import SideMaps, find_side_maps, parse_side_vector
from engine.training_data import TrainingData


class PicturePairs(RecordedData):
    """The data set of a run with one more split: pairs of pictures, which are read as that data set was.

    Only the other splits need the files of the data set. Files whose names differ only in the extension are a
    pair, as for `data.prepare`.

    Args:
      data: the data set of the run.
      side_inputs: of the run's task.
      input: folder of the inputs.
      target: folder of the targets.
      side_map: folder with a map for each pair; None if the run's networks take none.
      side_vector: for all pairs, as text; None if the run's networks take none.

    Attributes:
      split: name of the split.
      notes_of_pictures: how pictures differ from those of the training -> number of such pictures read.

    Raises:
      ConfigurationError: side information is missing, superfluous or malformed.
      DataError: the folders hold no pairs, or a picture has no partner. All pictures that cannot be used are
        printed then.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        side_inputs: Sequence[str],
        input: str,
        target: str,
        side_map: str | None = None,
        side_vector: str | None = None,
    ):
        description = dataclasses.replace(describe(data), is_paired=True)
        super().__init__(data, description)
        self.split = f"{input} -> {target}"
        self.notes_of_pictures: collections.Counter[str] = collections.Counter()
        self._formats = {role: role_format(description, role) for role in (INPUT, TARGET)}
        self._vector = parse_side_vector(
            side_inputs, self.example_spec, side_vector=side_vector, class_names=description.side_classes
        )
        self._side_maps: SideMaps | None = find_side_maps(side_inputs, description, side_map=side_map)
        self._geometry = ExampleGeometry(description)
        self._pairs, unusable = _find_pairs(input, target)
        self._error: Exception | None = None
        if unusable:
            raise self._refusal(unusable, self._pairs, pairs=len(self._pairs) + len(unusable))

    @property
    def pictures_of_example(self) -> int:
        """How many pictures make up an example: with a map, three."""
        return len(self._formats) + (self._side_maps is not None)

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """The pairs, or a split of the data set; see `TrainingData.evaluation`."""
        if split != self.split:
            return super().evaluation(split, batch=batch)
        roles = {INPUT, TARGET}
        roles |= {SIDE_MAP} if self._side_maps is not None else set()
        roles |= {SIDE_VECTOR} if self._vector is not None else set()
        spec = {name: feature for name, feature in self.example_spec.items() if name in roles}
        return tf.data.Dataset.from_generator(self._examples, output_signature=spec).batch(batch)

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Raises the error that ended reading, which TensorFlow has replaced by its own."""
        if split != self.split:
            super().check_records(split, position_examples)
        elif self._error is not None:
            raise self._error

    def _examples(self) -> Iterator[dict[str, tf.Tensor]]:
        for number, pair in enumerate(self._pairs, start=1):
            try:
                example = self._example(pair)
            except DataError as error:  # nothing is evaluated then, so the rest is only checked
                self._error = self._refusal([error], self._pairs[number:], pairs=len(self._pairs))
                raise self._error from error
            yield example

    def _refusal(self, found: Sequence[DataError], unchecked: Sequence[Example], *, pairs: int) -> DataError:
        """Prints all pairs that cannot be used, and returns the error to end with.

        Args:
          found: what is wrong with those that were checked.
          unchecked: pairs that were not.
          pairs: how many there are.
        """
        errors = list(found)
        for pair in unchecked:
            try:
                self._example(pair)
            except DataError as error:
                errors.append(error)
        if len(errors) == 1:
            return errors[0]
        print_refused(errors, of=f"{pairs} pairs")
        return DataError(
            f"{len(errors)} of {pairs} pairs cannot be used (listed above), so nothing is evaluated; mend or "
            f"remove them (the first: {errors[0]})"
        )

    def _example(self, pair: Example) -> dict[str, tf.Tensor]:
        """What networks see of a pair."""
        paths = dict(zip((INPUT, TARGET), (ref.path for ref in pair.images), strict=True))
        pictures = {role: self._formats[role].read(path) for role, path in paths.items()}
        if self._side_maps is not None:
            pictures[SIDE_MAP] = self._side_maps.read(paths[TARGET], pictures[TARGET])
            paths[SIDE_MAP] = f"the map of {paths[TARGET]}"
        images = self._geometry.fit(pictures, paths)
        example = {role: self._seen(role, image, pictures[role]) for role, image in images.items()}
        if self._vector is not None:
            example[SIDE_VECTOR] = tf.constant(self._vector, tf.float32)
        for picture in pictures.values():
            self.notes_of_pictures.update(picture.notes)
        return example

    def _seen(self, role: str, image: tf.Tensor, picture: Picture) -> tf.Tensor:
        low, high = picture.value_range
        return to_network(self.description, imaging.range_to_signed(image, low=low, high=high), role=role)


def _find_pairs(input: str, target: str) -> tuple[list[Example], list[DataError]]:
    """The pairs of two folders, by name; and what is wrong with files that are none."""
    folders = {"input": os.path.expanduser(input), "target": os.path.expanduser(target)}
    for name, folder in folders.items():
        if not gfile.is_dir(folder):
            raise DataError(f"--{name}={folder}: no such folder; give a folder of pictures")
    reader = FolderReader()
    pairs = reader.pairs_of(folders["input"], folders["target"])
    return pairs, [DataError(skipped.reason) for skipped in reader.skipped]
