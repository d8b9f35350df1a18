"""The fingerprint of a data set: what it tells apart, and what it does not depend on."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.pairs import PairedImages
from data.prepare import prepare
from data.single import SingleImages
from data.tfrecords.prepared_dataset import find_dataset, open_dataset


def draw(folder, count, *, seed=0, names="{:03d}"):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = np.random.default_rng([seed, k]).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{names.format(k)}.png")
    return folder


def fingerprint(source, data_dir, **options):
    prepare(layout="single", source=source, name="mine", data_dir=data_dir, overwrite=True, **options)
    return SingleImages(dataset="mine", data_dir=str(data_dir)).fingerprint()


@pytest.fixture
def source(tmp_path):
    return draw(tmp_path / "source", 30)


def test_digests_are_those_of_the_records(source, tmp_path):
    found = fingerprint(source, tmp_path / "sets")
    opened = open_dataset("mine", tmp_path / "sets")
    assert found["splits"].keys() == {"train", "val", "test"}
    for split, records in opened.splits.items():
        names, contents = hashlib.sha256(), hashlib.sha256()
        files = sorted(Path(opened.directory).glob(f"mine-{split}.*"))
        count = 0
        for record in tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator():
            name = tf.train.Example.FromString(record).features.feature["name"].bytes_list.value[0]
            for digest, value in ((names, name), (contents, record)):
                digest.update(len(value).to_bytes(8, "little") + value)
            count += 1
        stored = found["splits"][split]
        assert (stored["names"], stored["records"]) == (names.hexdigest(), contents.hexdigest())
        assert stored["examples"] == records.examples == count
        assert records.file_bytes == tuple(file.stat().st_size for file in files)
    assert found["features"] == {"name": "string ()", "image": "uint8 (None, None, 3), 0 to 255"}
    assert found["metadata"] == {"layout": "single"}
    assert json.loads(json.dumps(found)) == found


def test_the_same_images_have_the_same_fingerprint_wherever_they_are(source, tmp_path):
    first = fingerprint(source, tmp_path / "sets")
    assert fingerprint(source, tmp_path / "others") == first
    shutil.move(tmp_path / "others", tmp_path / "moved")
    assert SingleImages(dataset="mine", data_dir=str(tmp_path / "moved")).fingerprint() == first
    (source / "broken.png").write_bytes(b"")  # refused, so no part of the data set
    assert fingerprint(source, tmp_path / "sets") == first


def differing(before, after, split="train"):
    return {key for key, value in before["splits"][split].items() if after["splits"][split][key] != value}


def test_what_changes_the_fingerprint(source, tmp_path):
    data_dir = tmp_path / "sets"
    first = fingerprint(source, data_dir)
    other_pixels = fingerprint(draw(tmp_path / "noise", 30, seed=1), data_dir)
    assert {"records"} <= differing(first, other_pixels) <= {"records", "file_bytes"}
    other_names = fingerprint(draw(tmp_path / "named", 30, names="x{:03d}"), data_dir)
    assert "names" in differing(first, other_names)
    assert differing(first, fingerprint(source, data_dir, readers=2)) == {"files", "file_bytes"}
    more = fingerprint(draw(tmp_path / "more", 40), data_dir)
    assert "examples" in differing(first, more)


def test_a_data_set_without_digests_has_counts_and_sizes(source, tmp_path):
    first = fingerprint(source, tmp_path)
    file = Path(find_dataset("mine", tmp_path), "metadata.json")
    metadata = json.loads(file.read_text())
    digests = metadata.pop("digests")
    file.write_text(json.dumps(metadata))
    old = SingleImages(dataset="mine", data_dir=str(tmp_path)).fingerprint()
    for split, values in digests.items():
        assert first["splits"][split] == old["splits"][split] | values
    assert old["splits"]["train"].keys() == {"examples", "files", "file_bytes"}


def test_settings_of_a_run_do_not_change_it(small_set):
    whole = PairedImages(dataset="small", data_dir=small_set, load_size=36, crop_size=32)
    part = PairedImages(
        dataset="small", data_dir=small_set, load_size=0, crop_size=16, train_fraction=0.5, seed=3
    )
    assert whole.fingerprint() == part.fingerprint()
