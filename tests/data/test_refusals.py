"""Unusable data sets and settings raise one line that says how to mend it."""

import pathlib
import shutil
import struct

import pytest

from data.errors import DataError
from data.pairs import PairedImages


def refused(match, **settings):
    """Asserts that settings are refused, at the latest when the data set is opened."""
    with pytest.raises(DataError, match=match) as raised:
        source = PairedImages(**settings)
        source.batches(position_examples=0, global_batch=1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"crop_size": 300}, "larger than load_size = 286.*raise load_size"),
        ({"crop_size": 0}, "crop_size = 0: must be at least 1"),
        ({"load_size": -1}, "load_size = -1"),
        ({"direction": "AtoC"}, "'AtoC': must be 'AtoB' or 'BtoA'"),
        ({"seed": -3}, "seed = -3"),
    ],
)
def test_settings(settings, match):
    with pytest.raises(DataError, match=match):
        PairedImages(dataset="small", **settings)


def test_data_set_that_was_never_prepared(tmp_path):
    command = r"python -m data.prepare --layout=side_by_side --source=\S+ --name=facades --data_dir="
    refused(command, dataset="facades", data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../small", "", "a/b/c", "/etc"])
def test_invalid_names(small_set, name):
    refused("not a name", dataset=name, data_dir=small_set)


def test_images_smaller_than_the_crop_are_named(small_set):
    refused("'pair 1', whose height is 36", dataset="small", data_dir=small_set, load_size=0)
    settings = {"dataset": "small", "data_dir": small_set, "load_size": 0}
    refused("'pair 2', whose width is 34; lower crop_size", **settings, crop_size=36)


@pytest.fixture
def copy(small_set, tmp_path):
    """A copy of the small set that may be damaged: its folder and its first training shard."""
    shutil.copytree(small_set, tmp_path / "copy")
    return str(tmp_path / "copy"), next((tmp_path / "copy").rglob("small-train.tfrecord-00000"))


def test_missing_shard(copy):
    copy[1].unlink()
    refused("small-train.tfrecord-00000: this file.*missing", dataset="small", data_dir=copy[0])


def test_shard_cut_at_the_end_of_a_record(copy):
    stored = copy[1].read_bytes()
    length = struct.unpack("<Q", stored[:8])[0]
    copy[1].write_bytes(stored[: length + 16])
    refused("split 'train' are cut short", dataset="small", data_dir=copy[0])


def test_unreadable_description(copy):
    pathlib.Path(copy[1].parent, "features.json").write_text("{")
    refused("cannot be read", dataset="small", data_dir=copy[0])
