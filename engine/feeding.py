"""From a data set at a position to batches on the replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from data import imaging
from engine.batch_plan import BatchPlan, rows_of_replicas


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


def to_network(data: TrainingData, pictures: tf.Tensor) -> tf.Tensor:
    """RGB (or any other number of channels than 3) as the networks take it: float [..., C] in [-1, 1]."""
    if pictures.shape[-1] != 3:
        return pictures
    return imaging.rgb_to_space(pictures, data.colour_space)


def to_picture(data: TrainingData, images: tf.Tensor) -> tf.Tensor:
    """What networks take or make, as it is shown and measured.

    Args:
      images: float [..., C] in [-1, 1]; 3 channels are those of the data's colour space, others are taken
        as they are.

    Returns:
      uint8 [..., C]; 3 channels are RGB. Colours beyond it are clipped.
    """
    if images.shape[-1] == 3:
        images = tf.cast(images, tf.float64 if images.dtype == tf.float64 else tf.float32)
        images = imaging.space_to_rgb(images, data.colour_space)
    return imaging.to_uint8(images)


@contextlib.contextmanager
def explained(data: TrainingData, split: str, position_examples: int | None = None) -> Iterator[None]:
    """Where reading fails inside, raises the data set's own error: TensorFlow's names no file."""
    try:
        yield
    except (
        tf.errors.DataLossError,  # a checksum
        tf.errors.FailedPreconditionError,  # fewer records than there should be
        tf.errors.InvalidArgumentError,  # no picture, or too large
    ):
        data.check_records(split, position_examples)
        raise


def needs_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """TPUs compile for fixed shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def distributed_batches(
    strategy: tf.distribute.Strategy, data: TrainingData, *, position_examples: int, plan: BatchPlan
):
    """An iterator over global batches from a position, each replica's rows laid out as the plan says.

    A change of batch size makes a new iterator at the position reached; nothing of it is checkpointed.
    """
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        # Under auto-sharding every worker would decode everything; here each decodes its own rows.
        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = plan.replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return _rows_of(data, position_examples, plan, range(first, first + local))

        return iter(strategy.distribute_datasets_from_function(of_worker))
    batches = data.batches(position_examples=position_examples, global_batch=plan.global_batch)
    if plan.is_padded:
        batches = _arranged(batches, plan.positions(range(plan.replicas)), plan.static_shapes)
    return iter(strategy.experimental_distribute_dataset(batches))


def _rows_of(
    data: TrainingData, position_examples: int, plan: BatchPlan, replicas: Sequence[int]
) -> tf.data.Dataset:
    """What these replicas compute on, one element for each of them in turn."""
    if plan.is_padded:
        positions = plan.positions(replicas)  # [replicas, rows]
        sizes = [positions.shape[1]] * len(replicas)
        rows = sorted(positions[positions >= 0])
    else:
        all_sizes = rows_of_replicas(plan.global_batch, plan.replicas)
        sizes = [all_sizes[replica] for replica in replicas]
        first = sum(all_sizes[: replicas[0]])
        rows = range(first, first + sum(sizes))
    # Replicas without an example read one and keep nothing of it.
    batches = data.batches(
        position_examples=position_examples, global_batch=plan.global_batch, rows=list(rows) or [0]
    )
    if plan.is_padded:
        # The place of each example among those read.
        found = np.searchsorted(list(rows) or [0], positions)
        batches = _arranged(batches, np.where(positions < 0, -1, found), plan.static_shapes)
    elif not sum(sizes):
        return batches.map(lambda batch: {name: x[:0] for name, x in batch.items()})
    return batches if len(sizes) == 1 else batches.rebatch(sizes)


def _arranged(batches: tf.data.Dataset, rows: np.ndarray, static_shapes: bool) -> tf.data.Dataset:
    """Puts row rows[n] of each batch in place n, zeros where it is -1."""
    rows = rows.ravel()

    def arrange(batch):
        # Without static shapes, a tensor whose length the graph does not know: one trace fits all.
        order = (
            tf.constant(rows)
            if static_shapes
            else tf.raw_ops.PlaceholderWithDefault(input=rows, shape=[None])
        )
        places = order % tf.cast(tf.shape(next(iter(batch.values())))[0] + 1, tf.int64)
        return {
            name: tf.gather(tf.pad(x, [[0, 1]] + [[0, 0]] * (x.shape.rank - 1)), places)
            for name, x in batch.items()
        }

    return batches.map(arrange).prefetch(1)
