"""Paired batches: positions, rows, epochs, augmentation, held-out examples."""

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.errors import DataError
from data.pairs import PairedImages
from data.pipeline import record_reader
from data.pipeline.example_stream import ExampleStream
from data.supply import Supply
from data.tfrecords import prepared_dataset

EXAMPLES = 22  # of the 23 for training, one is held out


def pairs(data_dir, **settings):
    """The small set with windows of about a third of an epoch."""
    settings = {"load_size": 36, "crop_size": 32, "seed": 5} | settings
    supply = Supply(window_bytes=40_000, **settings.pop("supply", {}))
    return PairedImages(dataset="small", data_dir=data_dir, supply=supply, **settings)


def drawn(source, count, **where):
    """The first `count` examples of a stream as three arrays: ids, inputs, targets."""
    where = {"position_examples": 0, "global_batch": 1} | where
    batches, ids = [], 0
    for batch in source.batches(**where):
        batches.append({name: tensor.numpy() for name, tensor in batch.items()})
        ids += len(batch["id"])
        if ids >= count:
            break
    return tuple(np.concatenate([b[k] for b in batches])[:count] for k in ("id", "input", "target"))


def assert_same(first, second):
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def two_epochs(small_set):
    return drawn(pairs(small_set), 2 * EXAMPLES, global_batch=4)


def test_example_spec_describes_the_batches(small_set):
    source = pairs(small_set)
    batch = next(iter(source.batches(position_examples=0, global_batch=3)))
    assert source.train_examples == EXAMPLES
    assert list(source.example_spec) == ["input", "target"]
    for name, spec in source.example_spec.items():
        assert batch[name].shape == (3, *spec.shape) and batch[name].dtype == spec.dtype
    assert batch["input"].shape[-1] == 3 and batch["target"].shape[-1] == 1
    assert batch["id"].dtype == tf.int64
    assert -1 <= batch["input"].numpy().min() < batch["input"].numpy().max() <= 1


def test_direction_swaps_the_roles(small_set):
    there, back = (drawn(pairs(small_set, direction=way), 5) for way in ("AtoB", "BtoA"))
    assert_same(there, (back[0], back[2], back[1]))


def test_a_cache_on_disk_is_of_one_direction(small_set, tmp_path):
    shutil.copytree(small_set, tmp_path / "copy")
    there, back = (
        drawn(pairs(str(tmp_path / "copy"), direction=way, supply={"cache": "disk"}), 5)
        for way in ("AtoB", "BtoA")
    )
    assert_same(there, (back[0], back[2], back[1]))
    assert len(list((tmp_path / "copy" / ".cache").iterdir())) == 2


def test_every_example_comes_once_an_epoch(two_epochs):
    ids = two_epochs[0]
    for epoch in (ids[:EXAMPLES], ids[EXAMPLES:]):
        assert sorted(epoch) == list(range(EXAMPLES))
    assert (ids[:EXAMPLES] != ids[EXAMPLES:]).any()


def test_epochs_are_augmented_differently(two_epochs):
    ids, inputs, _ = two_epochs
    second = {i: x for i, x in zip(ids[EXAMPLES:], inputs[EXAMPLES:], strict=True)}
    differ = [
        not np.array_equal(x, second[i]) for i, x in zip(ids[:EXAMPLES], inputs[:EXAMPLES], strict=True)
    ]
    assert np.mean(differ) > 0.8


def test_windows_shards_and_epochs_are_smaller_than_the_tests_ranges(small_set):
    source = pairs(small_set)
    small = prepared_dataset.open_dataset("small", small_set).splits["train"]
    order = record_reader.example_order(records=small, seed=0, window_bytes=source.supply.window_bytes)
    assert len(small.shards) == 6
    assert 3 <= order.window_examples <= 10


@pytest.mark.parametrize("position", [*range(9), 13, 21, 22, 23, 30, 43])
def test_a_stream_from_a_position_is_the_tail_of_the_whole(small_set, two_epochs, position):
    count = min(3, 2 * EXAMPLES - position)
    tail = drawn(pairs(small_set), count, position_examples=position)
    assert_same(tail, tuple(x[position : position + count] for x in two_epochs))


def test_a_late_position_equals_the_epochs_before_it(small_set):
    source = pairs(small_set)
    whole = drawn(source, EXAMPLES, position_examples=7 * EXAMPLES)
    assert_same(drawn(source, 5, position_examples=8 * EXAMPLES - 5), [x[-5:] for x in whole])


@pytest.mark.parametrize("global_batch", [1, 5, 22, 30])
def test_batch_size_changes_nothing(small_set, two_epochs, global_batch):
    assert_same(drawn(pairs(small_set), 2 * EXAMPLES, global_batch=global_batch), two_epochs)


def test_a_batch_may_straddle_epochs(small_set):
    ids = drawn(pairs(small_set), 3 * EXAMPLES, global_batch=5)[0]
    batches = pairs(small_set).batches(position_examples=0, global_batch=5)
    assert [len(batch["id"]) for batch in batches.take(10)] == [5] * 10
    assert sorted(ids) == sorted([*range(EXAMPLES)] * 3)


def test_rows_together_are_the_whole(small_set):
    source = pairs(small_set)
    where = {"position_examples": 20, "global_batch": 7}
    whole = list(source.batches(**where).take(4))
    parts = [source.batches(**where, rows=rows).take(4) for rows in [range(3), [3], [4, 5, 6]]]
    for batch, *cut in zip(whole, *parts, strict=True):
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([part[name] for part in cut]), batch[name])


def test_rows_of_others_are_not_decoded(small_set, monkeypatch):
    decoded = []
    prepare = ExampleStream._training_example

    def counting(self, example):
        tf.py_function(lambda i: decoded.append(int(i)), [example["id"]], [])
        return prepare(self, example)

    monkeypatch.setattr(ExampleStream, "_training_example", counting)
    stream = pairs(small_set).batches(position_examples=0, global_batch=10, rows=(2, 4))
    assert len(list(stream.take(20))) == 20
    assert 40 <= len(decoded) < 100  # two of ten, and what runs ahead


@pytest.mark.parametrize("load_size", [0, 36])
def test_examples_are_crops_of_the_stored_pairs(small_set, pair_of, load_size):
    ids, inputs, targets = drawn(pairs(small_set, load_size=load_size), 8, global_batch=2)
    flips = set()
    for index, *found in zip(ids, inputs, targets, strict=True):
        stored = [resized(image, load_size) for image in pair_of(index)]
        matches = [
            place
            for place in itertools.product(
                range(stored[0].shape[0] - 31), range(stored[0].shape[1] - 31), (1, -1)
            )
            if all(is_cut(x, y, *place) for x, y in zip(found, stored, strict=True))
        ]
        assert len(matches) == 1, f"example {index} is cut from {len(matches)} places"
        flips.add(matches[0][2])
    assert flips == {1, -1}


def resized(image, size):
    """Bicubic with Pillow, columns first: uint8 [size, size, C]; as it is if size is 0."""
    if size:
        image = Image.fromarray(image.squeeze())
        for new_size in ((size, image.height), (size, size)):
            image = image.resize(new_size, Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(*np.shape(image)[:2], -1)


def is_cut(found, stored, top, left, step):
    """Whether `found`, in [-1, 1], is the given crop, mirrored if step is -1, within 1 level."""
    cut = stored[top : top + 32, left : left + 32][:, ::step]
    return np.abs((found + 1) * 127.5 - cut).max() < 1.01


def test_seeds_differ_in_order_and_augmentation(small_set):
    first, second = (drawn(pairs(small_set, seed=seed), EXAMPLES) for seed in (1, 2))
    assert (first[0] != second[0]).any()
    at = {i: x for i, x in zip(second[0], second[1], strict=True)}
    same = [np.array_equal(x, at[i]) for i, x in zip(first[0], first[1], strict=True)]
    assert np.mean(same) < 0.2


def test_held_out_examples_are_not_trained_on(small_set, two_epochs):
    source = pairs(small_set)
    assert source.evaluation_split == "train_held_out"
    assert source.splits == {"train": 22, "test": 5, "train_held_out": 1}
    batches = list(source.evaluation("train_held_out", batch=4))
    assert [int(i) for batch in batches for i in batch["id"]] == [22]
    assert batches[0]["name"].numpy().tolist() == [b"pair 22"]
    assert 22 not in two_epochs[0]


def test_evaluation_is_in_storage_order(small_set, pair_of):
    batches = list(pairs(small_set).evaluation("train", batch=4))
    assert [len(batch["id"]) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert [int(i) for batch in batches for i in batch["id"]] == list(range(EXAMPLES))
    for index, image in enumerate(batches[0]["input"].numpy()):
        expected = resized(pair_of(index)[0], 32)
        assert np.abs((image + 1) * 127.5 - expected).max() < 1.01


def test_evaluation_crops_the_centre_without_resizing(small_set, pair_of):
    batch = next(iter(pairs(small_set, load_size=0).evaluation("test", batch=2)))
    image = pair_of(23)[1]
    top, left = (side - 32 for side in image.shape[:2])
    expected = image[top // 2 :, left // 2 :][:32, :32]
    np.testing.assert_array_equal(np.round((batch["target"][0] + 1) * 127.5), expected)


def test_strategy_splits_uneven_batches(small_set):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    stream = pairs(small_set).batches(position_examples=0, global_batch=7)
    batch = next(iter(strategy.experimental_distribute_dataset(stream)))
    sizes = [x.shape[0] for x in strategy.experimental_local_results(batch["input"])]
    assert sizes == [4, 3]


@pytest.mark.parametrize(
    "where",
    [
        {"position_examples": -1, "global_batch": 2},
        {"position_examples": 0, "global_batch": 0},
        {"position_examples": 0, "global_batch": 2, "rows": (1, 3)},
        {"position_examples": 0, "global_batch": 2, "rows": (1, 1)},
    ],
)
def test_arguments_out_of_range(small_set, where):
    with pytest.raises(ValueError, match="must be position_examples >= 0"):
        pairs(small_set).batches(**where)


def test_training_stream_is_endless_and_evaluation_is_not(small_set):
    source = pairs(small_set)
    assert source.evaluation("test", batch=2).reduce(0, lambda n, _: n + 1) == 3
    with pytest.raises(DataError, match="no split 'valid'; choose one of train, train_held_out, test"):
        source.evaluation("valid", batch=1)
