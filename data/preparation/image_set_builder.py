"""Writes the files of a data set as TFDS does: shards of bounded sizes, and the description."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from data.tfrecords.fingerprint import DIGESTS, SplitDigests

SHARD_BYTES = 32 * 2**20
"""Target size of a shard: that of a shuffle window (`Supply.window_bytes`), so that a window opens two or
three files, and seeking a position skips at most one window of records. TensorFlow recommends at least 10 MB
per file, and 100 MB on remote storage, where more files mean more requests."""

MOST_SHARD_BYTES = 100 * 2**20
"""Largest size of a shard, if the records are larger than expected."""

Examples = Callable[[], Iterable[dict[str, Any]]]
"""A function that iterates over the examples of a split: {"name": str, feature: value to encode}."""


class ImageSetBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # mypy does not see the base class
):
    """Writes a data set of examples with encoded images and a name each.

    `write` streams: TFDS's own `download_and_prepare` sorts in memory and holds up to 1 GB.

    Args:
      name: of the data set, in snake_case.
      data_dir: folder of the data sets, on a disk: TFDS supports few object stores.
      features: image feature -> its `tfds` feature.
      splits: split -> function that iterates over its examples, in the order in which they are stored.
      metadata: function that returns the metadata of the data set, in JSON types; called after all examples
        have been consumed.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        name: str,
        data_dir: str,
        features: Mapping[str, tfds.features.FeatureConnector],
        splits: Mapping[str, Examples],
        metadata: Callable[[], Mapping],
    ):
        self.name = name
        self._features, self._examples, self._metadata = features, splits, metadata
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), **self._features}),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples[split]())

    def write(self, *, examples_per_shard: Mapping[str, float], directory: str | None = None) -> None:
        """Writes all splits that have examples, one example in memory at a time.

        Args:
          examples_per_shard: split -> number, maybe a fraction: example i belongs to shard i // number.
          directory: that receives the files of the data set; None is TFDS's own, in data_dir.
        """
        os.makedirs(self.data_dir)
        directory = directory or self.data_dir
        digests = {split: SplitDigests() for split in self._examples}
        splits = [
            self._write_split(split, examples_per_shard[split], directory, digests[split])
            for split in self._examples
        ]
        self.info.metadata.update(self._metadata())
        self.info.metadata[DIGESTS] = {
            split.name: digests[split.name].values() for split in splits if split.num_examples
        }
        self.info.set_file_format(tfds.core.FileFormat.TFRECORD, override=True)
        self.info.set_splits(tfds.core.SplitDict([split for split in splits if split.num_examples]))
        self.info.write_to_directory(self.data_dir)
        if directory != self.data_dir:
            for name in os.listdir(self.data_dir):
                tf.io.gfile.copy(os.path.join(self.data_dir, name), os.path.join(directory, name))

    def _write_split(
        self, split: str, examples_per_shard: float, directory: str, digests: SplitDigests
    ) -> tfds.core.SplitInfo:
        template = tfds.core.ShardedFileTemplate(
            dataset_name=self.name,
            data_dir=self.data_dir,
            split=split,
            filetype_suffix="tfrecord",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",  # the number of shards is not known yet
        )
        # TFDS's SequentialWriter cannot end a shard by its size in bytes.
        lengths: list[int] = []
        num_bytes, shard_bytes, shard, writer = 0, 0, 0, None
        try:
            for index, example in self._generate_examples(split):
                record = self.info.features.serialize_example(example)
                due = int(index / examples_per_shard) > shard or shard_bytes + len(record) > MOST_SHARD_BYTES
                if writer is None or due:
                    if writer is not None:
                        writer.close()
                    path = template.sharded_filepath(shard_index=len(lengths), num_shards=None)
                    writer = tf.io.TFRecordWriter(os.path.join(directory, path.name))
                    lengths.append(0)
                    shard, shard_bytes = int(index / examples_per_shard), 0
                writer.write(record)
                digests.add(example["name"], record)
                lengths[-1] += 1
                num_bytes += len(record)
                shard_bytes += len(record)
        finally:
            if writer is not None:
                writer.close()
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
        )


def examples_per_shard(*, examples: int, record_bytes: float, readers: int) -> float:
    """Returns how many examples a shard holds, as a fraction, so that shards differ by one at most.

    Args:
      examples: number in the split.
      record_bytes: expected mean size of an example.
      readers: smallest number of shards, unless there are fewer examples: as many can be read in parallel.
    """
    shards = max(readers, math.ceil(examples * record_bytes / SHARD_BYTES))
    return examples / max(1, min(shards, examples))
