"""What tells the contents of a prepared data set from others of its name, without reading its records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from data.tfrecords.prepared_dataset import PreparedDataset

DIGESTS = "digests"
"""Key of the metadata: split -> `SplitDigests.values`. Data sets that older code or TFDS has made lack it."""

# Metadata that may differ while the examples are the same, or that the examples determine.
_NOT_CONTENTS = (DIGESTS, "alpha", "refused", "smallest_height", "smallest_width")


class SplitDigests:
    """Digests of a split, made while it is written."""

    def __init__(self) -> None:
        self._names, self._records = hashlib.sha256(), hashlib.sha256()

    def add(self, name: str | bytes, record: bytes) -> None:
        """Adds the next example: its name, and its serialised form."""
        encoded = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
        for digest, value in ((self._names, encoded), (self._records, record)):
            digest.update(len(value).to_bytes(8, "little"))
            digest.update(value)

    def values(self) -> dict[str, str]:
        """{"names", "records"}: digests of the examples' names in order, and of their contents."""
        return {"names": self._names.hexdigest(), "records": self._records.hexdigest()}


def fingerprint(dataset: PreparedDataset) -> dict[str, Any]:
    """What identifies the contents of a data set; see `engine.training_data.HasFingerprint`.

    Returns:
      {"splits": {name: {"examples": their number, "files": digest of the numbers of examples in the files,
      "file_bytes": digest of the sizes of the files, and `SplitDigests.values` if they are stored}},
      "features": {name: dtype, shape and value range}, "metadata": {name: value}}, in JSON types.
    """
    stored = dataset.metadata.get(DIGESTS, {})
    return {
        "splits": {
            name: {
                "examples": records.examples,
                "files": _digest(shard.records for shard in records.shards),
                "file_bytes": _digest(records.file_bytes),
                **stored.get(name, {}),
            }
            for name, records in dataset.splits.items()
        },
        "features": {name: _describe(feature) for name, feature in dataset.features.items()},
        "metadata": {key: value for key, value in dataset.metadata.items() if key not in _NOT_CONTENTS},
    }


def _digest(numbers: Iterable[int]) -> str:
    return hashlib.sha256(" ".join(map(str, numbers)).encode()).hexdigest()


def _describe(feature: tfds.features.FeatureConnector) -> str:
    spec = feature.get_tensor_spec()
    text = f"{spec.dtype.name} {spec.shape}" if isinstance(spec, tf.TensorSpec) else str(spec)
    value_range = feature.doc.value_range
    return f"{text}, {value_range}" if value_range else text
