"""The built-in data set."""

import hashlib

import numpy as np
import pytest

from data.pairs import PairedImages
from data.synthetic import facades
from data.synthetic.facade_labels import COLOURS
from data.synthetic.facade_rendering import render_facade


def test_facades_are_the_same_every_time_and_all_different():
    seen = set()
    for index in range(500):
        labels = COLOURS[facades.draw_parts(index)]
        seen.add(hashlib.sha256(labels.tobytes()).hexdigest())
    assert len(seen) == 500
    for first, second in zip(facades.draw_facade(7), facades.draw_facade(7), strict=True):
        np.testing.assert_array_equal(first, second)


def test_pictures_follow_from_the_labels():
    labels, picture = facades.draw_facade(3)
    assert labels.shape == picture.shape == (128, 128, 3)
    assert labels.dtype == picture.dtype == np.uint8
    assert {tuple(colour) for colour in labels.reshape(-1, 3)} <= {tuple(c) for c in COLOURS}
    np.testing.assert_array_equal(render_facade(labels), picture)
    assert picture.std() > 30


def test_colours_are_distinct():
    assert len({tuple(colour) for colour in COLOURS}) == len(COLOURS)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(facades, "SPLIT_EXAMPLES", {"train": 6, "val": 2, "test": 3})


def test_it_is_drawn_on_first_use(short, tmp_path, monkeypatch, capsys):
    source = PairedImages(dataset="synthetic_facades", data_dir=str(tmp_path), load_size=0, crop_size=128)
    assert source.splits == {"train": 6, "val": 2, "test": 3}
    assert "generating the data set 'synthetic_facades'" in capsys.readouterr().out
    batch = next(iter(source.evaluation("val", batch=2)))
    assert batch["name"].numpy().tolist() == [b"facade_0006", b"facade_0007"]
    labels, picture = facades.draw_facade(7)
    np.testing.assert_array_equal(np.round((batch["input"][1] + 1) * 127.5), labels)
    np.testing.assert_array_equal(np.round((batch["target"][1] + 1) * 127.5), picture)
    monkeypatch.setattr(facades, "prepare_synthetic", None)  # a second use draws nothing
    assert PairedImages(dataset="synthetic_facades", data_dir=str(tmp_path)).train_examples == 6


def test_preparing_it_twice_keeps_the_first(short, tmp_path):
    facades.prepare_synthetic(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    facades.prepare_synthetic(tmp_path)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
