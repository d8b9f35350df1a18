"""What the engine asks of a data set: a contract to fulfil, beside `engine.task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import tensorflow as tf


class TrainingData(Protocol):
    """What the engine asks of a data set; `data.pairs.PairedImages` is one."""

    @property
    def train_examples(self) -> int:
        """Examples in one epoch."""

    @property
    def example_spec(self) -> Mapping[str, tf.TensorSpec]:
        """Shape [H, W, C] and dtype of each image of an example, and of the numbers [K] beside them."""

    @property
    def is_paired(self) -> bool:
        """Whether a target is what its input should become; else they are only of two domains."""

    @property
    def colour_space(self) -> str:
        """What networks see of images with 3 channels: one of `data.imaging.COLOUR_SPACES`."""

    @property
    def evaluation_split(self) -> str:
        """The split evaluated during training; never the test split."""

    def batches(
        self,
        *,
        position_examples: int,
        global_batch: int,
        rows: Sequence[int] | None = None,
    ) -> tf.data.Dataset:
        """Endless batches from a position; `rows` keeps (and decodes) only those of each batch."""

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """One pass over a split in a fixed order, the last batch as large as what is left."""

    def check_records(self, split: str, position_examples: int | None = None) -> None:
        """Raises an error that names the first record of a split that cannot be used.

        With a position, those that training reads next from there are looked at first.
        """

    def notes(self) -> Sequence[str]:
        """What reading has to tell so far, for the log; it only grows."""
