"""From a data set at a position to batches on the replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from engine.batch import rows_of_replicas


class TrainingData(Protocol):
    """What the engine asks of a data set; `data.pairs.PairedImages` is one."""

    @property
    def train_examples(self) -> int:
        """Examples in one epoch."""

    @property
    def example_spec(self) -> Mapping[str, tf.TensorSpec]:
        """Shape [H, W, C] and dtype of each image of an example."""

    @property
    def evaluation_split(self) -> str:
        """The split evaluated during training; never the test split."""

    def batches(
        self,
        *,
        position_examples: int,
        global_batch: int,
        rows: tuple[int, int] | None = None,
        static_shapes: bool = False,
    ) -> tf.data.Dataset:
        """Endless batches from a position; `rows` keeps (and decodes) only those of each batch."""

    def evaluation(self, split: str, *, batch: int) -> tf.data.Dataset:
        """One pass over a split in a fixed order, the last batch as large as what is left."""

    def check_records(self) -> None:
        """Raises an error that names the first damaged file; called when reading one failed."""


def needs_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """TPUs compile for fixed shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def distributed_batches(
    strategy: tf.distribute.Strategy,
    data: TrainingData,
    *,
    position_examples: int,
    global_batch: int,
):
    """An iterator over global batches from a position, cut into each replica's rows.

    A change of batch size makes a new iterator at the position reached; nothing of it is checkpointed.
    """
    static = needs_static_shapes(strategy)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        # Under auto-sharding every worker would decode everything; here each decodes its own rows.
        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            sizes = rows_of_replicas(global_batch, context.num_replicas_in_sync)
            local = context.num_replicas_in_sync // context.num_input_pipelines
            first_replica = context.input_pipeline_id * local
            start = sum(sizes[:first_replica])
            own_sizes = sizes[first_replica : first_replica + local]
            # A worker without a row of its own reads one and keeps nothing of it.
            first, rows = (start, sum(own_sizes)) if sum(own_sizes) else (0, 1)
            batches = data.batches(
                position_examples=position_examples,
                global_batch=global_batch,
                rows=(first, first + rows),
            )
            if not sum(own_sizes):
                return batches.map(lambda batch: {name: x[:0] for name, x in batch.items()})
            return batches if local == 1 else batches.rebatch(list(own_sizes))

        return iter(strategy.distribute_datasets_from_function(of_worker))
    batches = data.batches(
        position_examples=position_examples, global_batch=global_batch, static_shapes=static
    )
    return iter(strategy.experimental_distribute_dataset(batches))
