"""A data set as a run has recorded it: enough to build the run's networks where the examples are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data.description import DataDescription
from data.imaging import OneHot
from data.roles import INPUT
from engine.errors import ConfigurationError
from engine.training_data import TrainingData, target_kind


def describe(data: TrainingData) -> DataDescription:
    """Describes a data set: by its own `description`, or by the members that every data set has."""
    own = getattr(data, "description", None)
    if isinstance(own, DataDescription):
        return own
    spec = data.example_spec
    height, width = spec[INPUT].shape[:2] if INPUT in spec else (None, None)
    return DataDescription.of(
        data,
        dataset=type(data).__name__,
        crop_size=(height, width) if height and width else None,
        target_kind=target_kind(data),
        target_names=tuple(getattr(data, "target_names", ())),
    )


def unwrapped(data: TrainingData) -> Any:
    """The data set itself, which a run's record of it may wrap; users write their own kinds."""
    source: Any = data
    while isinstance(source, RecordedData):
        source = source.source
    return source


class RecordedData:
    """A data set whose shapes and numbers come from a run; only its examples are read from the files.

    It has the members of `engine.training_data.TrainingData`.

    Args:
      data: the data set; it need not exist until examples are asked for.
      description: what the run recorded.

    Attributes:
      source: the data set.
      description: as given.
    """

    def __init__(self, data: TrainingData, description: DataDescription):
        self.source = data
        self.description = description

    @property
    def train_examples(self) -> int:
        """Training examples in one epoch."""
        return self.description.train_examples

    @property
    def example_spec(self) -> dict[str, tf.TensorSpec]:
        """Shape and dtype of the features of an example, by name."""
        dtypes = self.description.dtypes
        return {
            name: tf.TensorSpec(shape, dtypes[name], name=name)
            for name, shape in self.description.shapes.items()
        }

    @property
    def is_paired(self) -> bool:
        """Whether each target is the ground truth of its input."""
        return self.description.is_paired

    @property
    def colour_space(self) -> str:
        """The colour space in which networks see images with 3 channels."""
        return self.description.colour_space

    @property
    def one_hot(self) -> Mapping[str, OneHot]:
        """The classes of images that networks see one-hot, by role."""
        return self.description.one_hot

    @property
    def label_roles(self) -> tuple[str, ...]:
        """The roles of images whose values are classes."""
        return self.description.label_roles

    @property
    def target_kind(self) -> str | None:
        """What targets are if they are labels; see `engine.training_data.HasTargetNames`."""
        return self.description.target_kind

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names of classes or numbers."""
        return self.description.target_names

    @property
    def target_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the data set; see `engine.training_data.HasTargetNames`."""
        return self.source.target_statistics  # type: ignore[attr-defined]  # such data have them

    @property
    def evaluation_split(self) -> str:
        """The split for evaluation during training."""
        return self.description.evaluation_split

    def batches(
        self, *, position_examples: int, global_batch: int, rows: Sequence[int] | None = None
    ) -> tf.data.Dataset:
        """The batches of the data set; see `TrainingData.batches`."""
        self._check_files()
        return self.source.batches(position_examples=position_examples, global_batch=global_batch, rows=rows)

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """A split of the data set; see `TrainingData.evaluation`."""
        self._check_files()
        return self.source.evaluation(split, batch=batch)

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Raises an error that names the first unusable record of a split."""
        self.source.check_records(split, position_examples)

    def notes(self) -> Sequence[str]:
        """Messages of reading for the log."""
        return self.source.notes()

    def _check_files(self) -> None:
        """Checks that networks see the examples in the files as they saw those of the training.

        Raises:
          ConfigurationError: the data set was prepared anew, with other shapes or value ranges.
          data.errors.DataError: the data set cannot be used.
        """
        now = describe(self.source)
        for what, trained, found in (
            ("examples of shapes", self.description.shapes, now.shapes),
            ("images stored as", _formats(self.description), self._recorded_formats(now)),
            ("labels with the classes", _classes(self.description), _classes(now)),
            ("targets with the names", _targets(self.description), _targets(now)),
        ):
            if trained != found:
                raise ConfigurationError(
                    f"data set {now.dataset!r}: has {what} {_listed(found)}, but the run was trained on "
                    f"{_listed(trained)}; restore the data set that the run was trained on"
                )

    def _recorded_formats(self, now: DataDescription) -> dict[str, str]:
        """The formats of the images that the run recorded; older code recorded none of side maps."""
        return {role: text for role, text in _formats(now).items() if role in self.description.images}


def _formats(description: DataDescription) -> dict[str, str]:
    return {role: str(image) for role, image in description.images.items()}


def _classes(description: DataDescription) -> dict[str, str]:
    return {role: ", ".join(map(str, found.classes)) for role, found in description.one_hot.items()}


def _targets(description: DataDescription) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(description.target_names)}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
