"""The interface of a data set, which the engine trains on; the other contract beside `engine.task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from data.roles import NUMBERS


class TrainingData(Protocol):
    """A data set with training and evaluation splits; `data.pairs.PairedImages` is one.

    A data set may also have a property `description`, a `data.description.DataDescription`. A run keeps it,
    and `engine.translate` treats pictures by it; without it, a picture's own range becomes [-1, 1]. One with
    a property `label_roles`, names of features whose values are classes, keeps their colours. Targets that
    are no images need `HasTargetNames`.
    """

    @property
    def train_examples(self) -> int:
        """Training examples in one epoch."""

    @property
    def example_spec(self) -> Mapping[str, tf.TensorSpec]:
        """Shape and dtype of an example's features, by name: images [H, W, C], vectors [K]."""

    @property
    def is_paired(self) -> bool:
        """Whether each target is the ground truth of its input; if not, they are images of two domains."""

    @property
    def colour_space(self) -> str:
        """One of `data.imaging.COLOUR_SPACES`, in which networks see images with 3 channels."""

    @property
    def evaluation_split(self) -> str:
        """The split for evaluation during training; never the test split."""

    def batches(
        self,
        *,
        position_examples: int,
        global_batch: int,
        rows: Sequence[int] | None = None,
    ) -> tf.data.Dataset:
        """An endless stream of training batches.

        Args:
          position_examples: examples of the run before the first batch.
          global_batch: examples per batch.
          rows: which rows of each batch to keep, and decode; None for all.
        """

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """One pass over a split in a fixed order.

        Args:
          split: its name.
          batch: examples per batch; the last may have fewer.
        """

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Raises an error that names the first unusable record of a split.

        Args:
          split: its name.
          position_examples: where to look first: at the records that training reads from there.
        """

    def notes(self) -> Sequence[str]:
        """Messages of reading for the log, all so far."""


@runtime_checkable
class HasFingerprint(Protocol):
    """A data set that can tell whether it still is what it was; optional for `TrainingData`.

    A run keeps the fingerprint, and refuses to continue with a data set that has another one.
    """

    def fingerprint(self) -> Mapping[str, Mapping[str, Any]]:
        """Identifies the contents, wherever they are stored, without reading all of them.

        Returns:
          {"splits": {name: {"examples": their number, ...}}}, and under other keys names and values of what
          must not change; all in JSON types.
        """


class HasTargetNames(Protocol):
    """A data set whose targets are labels: vectors "target" [K]; such a one is `TrainingData` too."""

    @property
    def target_kind(self) -> str | None:
        """`data.roles.CLASSES` or NUMBERS; None: targets are images."""

    @property
    def target_names(self) -> tuple[str, ...]:
        """The name of each class or number, [K]."""

    @property
    def target_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of numbers in the training split, float64 [K] each."""


def target_kind(data: TrainingData) -> str | None:
    """`data.roles.CLASSES` or NUMBERS; None for data whose targets are images, which need not say so."""
    return getattr(data, "target_kind", None)


def target_statistics(data: TrainingData) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation of the training targets, float64 [K] each; None if they are no numbers."""
    return data.target_statistics if target_kind(data) == NUMBERS else None  # type: ignore[attr-defined]
