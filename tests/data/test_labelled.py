"""Labelled batches: targets beside their images, positions, rows, restarts, caches, damage, sets of TFDS."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data import imaging
from data.augmentation.colour import Invert
from data.augmentation.geometry import Rotation
from data.description import DataDescription
from data.errors import DataError
from data.labelled import LabelledImages
from data.preparation import tfds_writer
from data.prepare import prepare
from data.single import SingleImages
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


def test_a_stream_from_any_position_and_of_any_batch_is_the_same(data_dir, two_epochs):
    for epoch in (two_epochs["id"][:EXAMPLES], two_epochs["id"][EXAMPLES:]):
        assert sorted(epoch) == list(range(EXAMPLES))
    data = labelled(data_dir)
    for position in (1, 7, 20, 21, 22, 34):
        tail = drawn(data, 5, position_examples=position, global_batch=3)
        assert_same(tail, {name: rows[position : position + 5] for name, rows in two_epochs.items()})


def test_replicas_rows_together_are_the_whole(data_dir):
    where = {"position_examples": 19, "global_batch": 5}  # over the end of an epoch
    data = labelled(data_dir)
    whole = drawn(data, 10, **where)
    parts = [drawn(data, 2 * len(rows), **where, rows=rows) for rows in ([0, 1, 2], [3, 4])]
    for name in whole:
        first, second = (np.split(part[name], 2) for part in parts)
        joined = np.concatenate([first[0], second[0], first[1], second[1]])
        np.testing.assert_array_equal(joined, whole[name])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    batch = next(iter(strategy.experimental_distribute_dataset(data.batches(**where))))
    targets = [x.numpy() for x in strategy.experimental_local_results(batch["target"])]
    assert [x.shape for x in targets] == [(3, 3), (2, 3)]
    np.testing.assert_array_equal(np.concatenate(targets), whole["target"][:5])


@pytest.mark.parametrize("supply", [{"cache": "memory"}, {"cache": "disk"}, {"on_bad_record": "skip"}])
def test_no_way_of_reading_changes_an_example(data_dir, two_epochs, supply):
    data = labelled(data_dir, supply=supply)
    assert_same(drawn(data, 8, position_examples=18), {n: x[18:26] for n, x in two_epochs.items()})
    assert any("cached" in note for note in data.notes()) == ("cache" in supply)


def test_a_cache_on_disk_is_not_that_of_the_images_alone(data_dir, two_epochs):
    supply = Supply(window_bytes=5000, cache="disk")
    single = SingleImages(
        dataset="classes", data_dir=data_dir, load_size=0, crop_size=8, seed=5, supply=supply
    )
    alone = drawn(single, 8)
    np.testing.assert_array_equal(alone["target"], two_epochs["input"][:8])
    assert_same(
        drawn(labelled(data_dir, supply={"cache": "disk"}), 8), {n: x[:8] for n, x in two_epochs.items()}
    )


def test_augmentations_change_the_input_alone(data_dir, two_epochs):
    plain, inverted = (
        drawn(labelled(data_dir, flip=False, augmentations=chosen), 8)
        for chosen in ((), (Invert(probability=1), Invert(probability=1, on="target")))
    )
    np.testing.assert_allclose(inverted["input"], -plain["input"], rtol=0, atol=1e-6)
    for name in ("target", "id", "side_vector"):
        np.testing.assert_array_equal(inverted[name], plain[name])
        np.testing.assert_array_equal(plain[name], two_epochs[name][:8])
    moved = drawn(labelled(data_dir, augmentations=(Rotation(degrees=(20, 40)),)), 8)
    np.testing.assert_array_equal(moved["target"], plain["target"])
    assert np.abs(moved["input"] - plain["input"]).mean() > 0.1


def test_a_colour_space_is_that_of_the_input(data_dir, two_epochs):
    found = drawn(labelled(data_dir, colour_space="lab"), 4)
    expected = imaging.rgb_to_space(two_epochs["input"][:4], "lab")
    np.testing.assert_allclose(found["input"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["target"], two_epochs["target"][:4])


def test_evaluation_is_in_storage_order(data_dir):
    data = labelled(data_dir, "numbers", crop_size=(12, 14))
    assert data.splits == {"train": EXAMPLES, "train_held_out": 1, "test": 5}
    batches = list(data.evaluation("test", batch=4))
    assert [len(batch["id"]) for batch in batches] == [4, 1]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert joined["name"].tolist() == [b"22", b"23", b"24", b"25", b"26"]
    np.testing.assert_array_equal(joined["target"], [numbers_of(k) for k in range(22, 27)])
    stored = np.stack([image_of(k, 2, np.uint16) for k in range(22, 27)])
    np.testing.assert_allclose(joined["input"], stored / 32767.5 - 1, rtol=0, atol=1e-6)


def test_a_fraction_of_the_examples(data_dir):
    data = labelled(data_dir, train_fraction=0.5)
    assert data.train_examples == round(EXAMPLES / 2)
    batch = drawn(data, data.train_examples)
    assert len(set(batch["id"])) == data.train_examples
    np.testing.assert_array_equal(batch["target"].argmax(axis=1), [class_of(k) for k in batch["id"]])


def test_description_and_fingerprint_name_the_targets(data_dir):
    classes, numbers = (labelled(data_dir, name) for name in ("classes", "numbers"))
    description = DataDescription.from_json(classes.description.to_json())
    assert description == classes.description
    assert (description.target_kind, description.target_names) == ("classes", CLASSES)
    assert description.shapes["target"] == (3,) and description.images.keys() == {"input"}
    assert numbers.description.target_names == ("width", "depth")
    assert classes.fingerprint()["target"] == {"kind": "classes", "names": list(CLASSES)}
    assert numbers.fingerprint()["metadata"]["target_statistics"]["mean"] == [1.5, -2]


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set as TFDS makes them: grey images, the names of the classes unknown, one label missing."""

    name = "digits"
    VERSION = tfds.core.Version("3.0.1")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(12, 14, 1)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "coarse": tfds.features.ClassLabel(names=["odd", "even"]),
            "age": tfds.features.Tensor(shape=(), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(22)), "test": self._generate_examples(range(22, 25))}

    def _generate_examples(self, indices):
        for index in indices:
            label = -1 if index == 24 else class_of(index)
            yield index, {"image": image_of(index, 1), "label": label, "coarse": index % 2, "age": index}


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("datasets")
    builder = Digits(data_dir=data_dir)
    os.makedirs(builder.data_dir)
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=30)
    writer.initialize_splits(["train", "test"])
    for split, indices in (("train", range(22)), ("test", range(22, 25))):
        writer.add_examples({split: [example for _, example in builder._generate_examples(indices)]})
    writer.close_all()
    return str(data_dir)


def test_data_sets_of_tfds(public):
    data = labelled(public, "digits")
    assert (data.target_names, data.example_spec["input"].shape) == (("0", "1", "2"), (8, 8, 1))
    [batch] = data.evaluation("train", batch=30)
    np.testing.assert_array_equal(batch["target"].numpy().argmax(axis=1), [class_of(k) for k in range(21)])
    report = str(prepare(layout="tfds", name="digits", data_dir=public))
    assert "--gin_file=gin/classification.gin" in report and "LabelledImages" not in report
    coarse = labelled(public, "digits", label="coarse")
    assert coarse.target_names == ("odd", "even")
    assert coarse.fingerprint()["target"] != data.fingerprint()["target"]
    np.testing.assert_array_equal(
        next(iter(coarse.evaluation("test", batch=3)))["target"], [[1, 0], [0, 1], [1, 0]]
    )
    assert list(labelled(public, "digits", augmentations=(Invert(),)).example_spec) == ["input", "target"]


def test_an_example_without_a_label_is_a_damaged_record(public):
    data = labelled(public, "digits")
    data.check_records("train")
    with pytest.raises(DataError, match=r"record 2 is damaged \(.*its label is none of the 3 classes"):
        data.check_records("test")
    skipping = labelled(public, "digits", supply={"on_bad_record": "skip"})
    assert [len(batch["id"]) for batch in skipping.evaluation("test", batch=5)] == [2]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"feature": "picture"}, "has no image feature 'picture' (its features are image, "),
        ({"label": "age"}, "has no ClassLabel 'age' (its features are "),
        ({"label": "labels"}, "or set labelled.LabelledImages.label"),
        ({"colour_space": "lab"}, "needs images of 3 channels, but the input (feature 'image') has 1"),
    ],
)
def test_data_sets_that_do_not_fit(public, settings, words):
    with pytest.raises(DataError) as caught:
        _ = labelled(public, "digits", **settings).example_spec
    assert words in str(caught.value)
