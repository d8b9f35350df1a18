"""Caches, tf.data service, parts of the training set: what is drawn stays the same."""

import numpy as np
import pytest

from data.errors import DataError
from data.pairs import PairedImages
from data.supply import Supply
from data.tfrecords import prepared_dataset

EXAMPLES = 22


def pairs(data_dir, *, supply=None, **settings):
    supply = Supply(**{"window_bytes": 40_000} | (supply or {}))
    settings = {"load_size": 36, "crop_size": 32, "seed": 5} | settings
    return PairedImages(dataset="small", data_dir=data_dir, supply=supply, **settings)


def drawn(source, batches=6, **where):
    where = {"position_examples": 0, "global_batch": 5} | where
    found = list(source.batches(**where).take(batches))
    return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


@pytest.fixture
def copy(small_set, tmp_path):
    """A folder with a link to the small set, in which a cache may be written."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "small").symlink_to(f"{small_set}/small")
    return tmp_path / "sets"


@pytest.mark.parametrize("supply", [{"cache": "memory"}, {"cache": "disk"}, {"on_bad_record": "skip"}])
@pytest.mark.parametrize("where", [{}, {"position_examples": 37, "rows": [1, 4]}])
def test_however_records_are_read_the_stream_is_the_same(copy, small_set, supply, where):
    expected = drawn(pairs(small_set), **where)
    found = drawn(pairs(str(copy), supply=supply), **where)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_cache_on_disk_is_made_once_and_again_for_other_records(copy):
    source = pairs(str(copy), supply={"cache": "disk"})
    drawn(source, batches=1)
    [first] = (copy / ".cache").iterdir()
    assert source.notes() == [f"decoded images are cached in {first}: 22 examples"]
    written = first.stat().st_mtime_ns
    drawn(pairs(str(copy), supply={"cache": "disk"}), batches=1)
    assert first.stat().st_mtime_ns == written
    drawn(pairs(str(copy), supply={"cache": "disk"}, train_fraction=0.5), batches=1)
    assert len(list((copy / ".cache").iterdir())) == 2


def test_what_does_not_fit_is_not_cached_and_noted(small_set):
    supply = {"cache": "memory", "ram_budget_bytes": 160_000}  # 22 pairs take 4 bytes x 2000 x 22
    source = pairs(small_set, supply=supply)
    found = drawn(source)
    assert "not cached: they take more than 0 MiB" in source.notes()[0]
    np.testing.assert_array_equal(found["input"], drawn(pairs(small_set))["input"])
    fits = pairs(small_set, supply=supply | {"ram_budget_bytes": 400_000})
    drawn(fits)
    assert fits.notes() == ["decoded images are cached in memory: 22 examples, 0 MiB"]


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"cache": "gpu"}, "cache = 'gpu': must be one of none, memory, disk"),
        ({"on_bad_record": "ignore"}, "on_bad_record = 'ignore'"),
        ({"window_bytes": 0}, "window_bytes = 0: must be at least 1"),
        ({"window_bytes": 2**29}, "3 windows are in memory at once"),
        ({"largest_bad_share": 1.0}, "largest_bad_share = 1.0"),
        ({"service": "grpc://localhost:1", "cache": "memory"}, "service = 'grpc://localhost:1'"),
    ],
)
def test_settings_that_cannot_be_used(settings, match):
    with pytest.raises(DataError, match=match):
        Supply(**settings)


def test_a_part_of_the_training_set_is_drawn_once_an_epoch(small_set):
    source = pairs(small_set, train_fraction=0.25)
    assert source.train_examples == 6  # 5.5, to the even
    ids = drawn(source, batches=2, global_batch=6)["id"]
    assert sorted(ids[:6]) == sorted(ids[6:]) == sorted(set(ids))


def ids_of(stored, fraction, seed):
    part = stored.fraction(fraction, seed)
    ids = {shard.first_id + k for shard in part.shards for k in range(shard.records)}
    assert len(ids) == part.examples
    return ids


def test_parts_are_the_same_for_a_seed_and_grow(small_set):
    stored = prepared_dataset.open_dataset("small", small_set).splits["train"]
    for seed in range(20):
        parts = [ids_of(stored, fraction, seed) for fraction in (0.01, 0.25, 0.5, 0.9, 0.95, 1.0)]
        assert [len(part) for part in parts] == [1, 6, 12, 21, 22, 23]
        for smaller, larger in zip(parts, parts[1:], strict=False):
            assert smaller < larger
        assert ids_of(stored, 0.25, seed) == parts[1]
    assert len({frozenset(ids_of(stored, 0.25, seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_invalid_fractions(small_set, fraction):
    with pytest.raises(DataError, match="TRAIN_FRACTION = "):
        pairs(small_set, train_fraction=fraction)
