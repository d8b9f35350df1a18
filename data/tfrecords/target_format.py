"""How the target of a labelled image is stored: a class, or numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from data.roles import CLASSES, TARGET

LABEL = "label"
"""The feature of a class, as in the data sets of TFDS. That of numbers has the name of the role, "target"."""

TARGET_NAMES, TARGET_STATISTICS = "target_names", "target_statistics"
"""Metadata of numbers: the name of each; {"mean", "standard_deviation"} of each in the training split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetFormat:
    """How the targets of a data set are stored.

    Attributes:
      kind: "classes" or "numbers".
      names: of the classes, in the order of a one-hot vector, or of the numbers.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def feature_name(self) -> str:
        """The name of the feature."""
        return LABEL if self.kind == CLASSES else TARGET

    @property
    def feature(self) -> tfds.features.FeatureConnector:
        """The `tfds` feature: a class is an index into `names`, numbers are float32 [K]."""
        if self.kind == CLASSES:
            return tfds.features.ClassLabel(names=self.names)
        return tfds.features.Tensor(shape=(len(self.names),), dtype=np.float32)
