"""Batches of images with a class or numbers each, for classification and regression."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.errors import DataError
from data.pipeline.example_decoder import ImageSource
from data.pipeline.image_dataset import ImageDataset
from data.roles import CLASSES, INPUT, NUMBERS, TARGET
from data.tfrecords.prepared_dataset import PreparedDataset
from data.tfrecords.target_format import LABEL, TARGET_NAMES, TARGET_STATISTICS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages(ImageDataset):
    """Images, each with a class or with numbers.

    The input is the image, the target a vector float32 [K]: one-hot over the classes of the data set, or K
    numbers in their own units, as they are stored. Augmentations apply to the image alone. Data sets of
    `data.prepare --layout=labelled` and those of TFDS with an image and a `ClassLabel` can be read.

    The attributes of `ImageDataset` apply too.

    Attributes:
      feature: name of the image feature.
      label: name of the class feature; numbers, which `data.prepare` stores, need none.
    """

    feature: str = "image"
    label: str = LABEL

    @property
    def target_kind(self) -> str:
        """What a target is: "classes", one-hot, or "numbers"."""
        stored = self._opened.features[self._target_feature(self._opened)]
        return CLASSES if isinstance(stored, tfds.features.ClassLabel) else NUMBERS

    @property
    def target_names(self) -> tuple[str, ...]:
        """Name of each class or number of a target, [K]."""
        if self.target_kind == CLASSES:
            return tuple(self._opened.features[self.label].names)
        return tuple(self._opened.metadata[TARGET_NAMES])

    @property
    def target_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each number in the stored "train": float64 [K] each, the second > 0.

        Raises:
          DataError: the targets are classes.
        """
        if self.target_kind == CLASSES:
            raise DataError(f"{self._opened.directory}: its targets are classes, which have no mean")
        stored = self._opened.metadata[TARGET_STATISTICS]
        return np.array(stored["mean"], np.float64), np.array(stored["standard_deviation"], np.float64)

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the contents of the data set, the names of its classes included."""
        target = {"kind": self.target_kind, "names": list(self.target_names)}
        return {**super().fingerprint(), "target": target}

    def _sources(self, opened: PreparedDataset) -> tuple[Mapping[str, ImageSource], ...]:
        channels = opened.image_features
        if self.feature not in channels:
            raise DataError(
                f"{opened.directory}: has no image feature {self.feature!r} (its features are "
                f"{', '.join(opened.features)}); prepare it with --layout=labelled, or set "
                "labelled.LabelledImages.feature"
            )
        source = ImageSource(
            feature=self.feature,
            channels=channels[self.feature],
            classes=opened.labels.get(self.feature),
            alpha=opened.has_alpha(self.feature),
        )
        return ({INPUT: source},)

    def _vectors(self, opened: PreparedDataset) -> Mapping[str, str]:
        return {TARGET: self._target_feature(opened), **super()._vectors(opened)}

    def _target_feature(self, opened: PreparedDataset) -> str:
        """The feature of the target: a class label, or numbers of `data.prepare`."""
        label = opened.features[self.label] if self.label in opened.features else None
        if isinstance(label, tfds.features.ClassLabel) and label.num_classes:
            return self.label
        if TARGET in opened.features and TARGET_NAMES in opened.metadata:
            return TARGET
        raise DataError(
            f"{opened.directory}: has no ClassLabel {self.label!r} (its features are "
            f"{', '.join(opened.features)}); prepare it with --layout=labelled, or set "
            "labelled.LabelledImages.label"
        )
