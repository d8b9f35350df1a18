"""Labelled batches: targets beside their images, positions, rows, restarts, caches, damage, sets of TFDS."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data.errors import DataError
from data.labelled import LabelledImages
from data.preparation import tfds_writer
from data.supply import Supply
from data.tfrecords import image_encoding
from data.tfrecords.target_format import TargetFormat

EXAMPLES = 21  # of the 22 for training, one is held out
CLASSES = ("bird", "cat", "dog")


def image_of(index, channels=3, dtype=np.uint8):
    return np.random.default_rng(index).integers(0, np.iinfo(dtype).max + 1, (12, 14, channels)).astype(dtype)


def class_of(index):
    return (index * index + 1) % 3


def numbers_of(index):
    return [index / 8, -1000.5 * index]


def write_set(data_dir, name, target, value_of, *, metadata=None, channels=3, dtype=np.uint8, vectors=False):
    """Writes 22 training and 5 test examples in shards of at most 4."""
    high = np.iinfo(dtype).max
    stored = image_encoding.StoredFormat(
        channels=channels, dtype=np.dtype(dtype).name, value_range=(0, high)
    ).feature()
    features = {"image": stored, target.feature_name: target.feature}
    if vectors:
        features["side_vector"] = tfds.features.Tensor(shape=(1,), dtype=np.float32)

    def examples(first, last):
        for index in range(first, last):
            image = image_encoding.encode_png(image_of(index, channels, dtype))
            example = {"name": f"{index}", "image": image, target.feature_name: value_of(index)}
            yield example | ({"side_vector": np.array([index], np.float32)} if vectors else {})

    tfds_writer.write_dataset(
        name=name,
        data_dir=data_dir,
        features=features,
        splits={"train": lambda: examples(0, 22), "test": lambda: examples(22, 27)},
        metadata=lambda: metadata or {},
        examples_per_shard={"train": 4, "test": 5},
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Folder with "classes" (and a side vector) and "numbers" (16-bit images of 2 channels)."""
    folder = tmp_path_factory.mktemp("datasets")
    write_set(folder, "classes", TargetFormat(kind="classes", names=CLASSES), class_of, vectors=True)
    metadata = {
        "target_names": ["width", "depth"],
        "target_statistics": {"mean": [1.5, -2], "standard_deviation": [3, 0.25]},
    }
    target = TargetFormat(kind="numbers", names=("width", "depth"))
    as_array = lambda index: np.array(numbers_of(index), np.float32)  # noqa: E731
    write_set(folder, "numbers", target, as_array, metadata=metadata, channels=2, dtype=np.uint16)
    return str(folder)


def labelled(data_dir, dataset="classes", **settings):
    settings = {"load_size": 0, "crop_size": 8, "seed": 5} | settings
    supply = Supply(window_bytes=5000, **settings.pop("supply", {}))
    return LabelledImages(dataset=dataset, data_dir=data_dir, supply=supply, **settings)


def drawn(source, count, **where):
    """The first `count` examples of a stream: {name: array}."""
    where = {"position_examples": 0, "global_batch": 4} | where
    batches = []
    for batch in source.batches(**where):
        batches.append({name: tensor.numpy() for name, tensor in batch.items()})
        if sum(len(batch["id"]) for batch in batches) >= count:
            return {name: np.concatenate([b[name] for b in batches])[:count] for name in batches[0]}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.fixture(scope="module")
def two_epochs(data_dir):
    return drawn(labelled(data_dir), 2 * EXAMPLES)


def test_classes_are_one_hot_beside_their_images(data_dir, two_epochs):
    data = labelled(data_dir)
    assert (data.target_kind, data.target_names, data.is_paired) == ("classes", CLASSES, True)
    assert {name: tuple(spec.shape) for name, spec in data.example_spec.items()} == {
        "input": (8, 8, 3),
        "target": (3,),
        "side_vector": (1,),
    }
    assert list(data.example_spec) == ["input", "target", "side_vector"]
    assert two_epochs["target"].dtype == np.float32 and two_epochs["input"].dtype == np.float32
    expected = [[class_of(k) == c for c in range(3)] for k in two_epochs["id"]]
    np.testing.assert_array_equal(two_epochs["target"], expected)
    np.testing.assert_array_equal(two_epochs["side_vector"][:, 0], two_epochs["id"])
    with pytest.raises(DataError, match="are classes, which have no mean"):
        _ = data.target_statistics


def test_numbers_keep_their_units(data_dir):
    data = labelled(data_dir, "numbers")
    assert (data.target_kind, data.target_names) == ("numbers", ("width", "depth"))
    batch = drawn(data, EXAMPLES)
    assert data.example_spec["input"].shape == (8, 8, 2)
    np.testing.assert_array_equal(batch["target"], np.float32([numbers_of(k) for k in batch["id"]]))
    mean, deviation = data.target_statistics
    assert mean.dtype == deviation.dtype == np.float64
    np.testing.assert_array_equal([mean, deviation], [[1.5, -2], [3, 0.25]])
