"""Writing a data set: in threads, in bounded memory, in shards of a chosen size, all or nothing."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data.preparation import image_set_builder, tfds_writer
from data.preparation.parallel_map import map_in_order
from data.prepare import prepare
from data.tfrecords import prepared_dataset
from data.tfrecords.image_encoding import StoredFormat

ROOT = pathlib.Path(__file__).parents[3]


def fill(folder, count, size=24):
    """Writes images of noise, `count` of them, some of which must be re-encoded."""
    folder.mkdir()
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"scene{k // 10:04d} {k:05d}.{'bmp' if k % 3 else 'png'}")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_threads_write_the_bytes_of_one(tmp_path):
    source = fill(tmp_path / "source", 60)
    (source / "empty.png").write_bytes(b"")
    for threads in (1, 7):
        prepare(
            layout="single", source=source, name="made", data_dir=tmp_path / str(threads), threads=threads
        )
    one, many = (contents(tmp_path / threads) for threads in "17")
    assert len(one) > 8 and one == many


def test_order_is_kept_and_few_items_are_begun():
    begun, most, lock = [], [], threading.Lock()

    def work(item):
        with lock:
            begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item

    taken = []
    for result in map_in_order(work, range(100), threads=3):
        most.append(len(begun) - len(taken))
        taken.append(result)
        time.sleep(0.005)  # a slow writer
    assert taken == list(range(100))
    assert max(most) <= 6


def test_giving_up_begins_nothing_more():
    begun = []

    def work(item):
        begun.append(item)
        if item == 10:
            raise ValueError("ten")
        return item

    with pytest.raises(ValueError, match="ten"):
        list(map_in_order(work, range(1000), threads=2))
    assert max(begun) <= 14


def peak_bytes(tmp_path, count):
    source = fill(tmp_path / f"source{count}", count, size=48)
    arguments = {"layout": "single", "source": source, "threads": 2, "group": r"(scene\d+) "}
    tracemalloc.start()
    try:
        prepare(name="made", data_dir=tmp_path / f"made{count}", **arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_holds_names_and_no_images(tmp_path):
    peak_bytes(tmp_path, 20)  # what is allocated once
    few, many = peak_bytes(tmp_path, 100), peak_bytes(tmp_path, 800)
    # 40 MB for 40,000 images is 1,000 bytes each; the images are 6,900 bytes each.
    assert many - few < 1000 * 700
    assert many < 6e6


def write(tmp_path, sizes, **settings):
    """Writes raw records of given sizes and gives the lengths of the shards."""
    image = StoredFormat(channels=5, dtype="uint8", value_range=(0, 255)).feature()

    def examples():
        for k, size in enumerate(sizes):
            yield {"name": str(k), "image": np.full((1, size // 5, 5), k % 256, np.uint8)}

    tfds_writer.write_dataset(
        name="raw",
        data_dir=tmp_path,
        features={"image": image},
        splits={"train": examples},
        metadata=dict,
        **settings,
    )
    dataset = prepared_dataset.open_dataset("raw", tmp_path)
    return [shard.records for shard in dataset.splits["train"].shards]


@pytest.mark.parametrize(
    "examples, record_bytes, readers, expected",
    [
        (100, 10_000, 8, [12, 13]),  # small: a shard for each reader
        (5, 10_000, 8, [1]),  # as far as there are examples
        (1000, 2**20, 8, [31, 32]),  # 1000 MiB: 32 shards of 31.25 MiB
        (23, 10, 1, [23]),
    ],
)
def test_shards(tmp_path, examples, record_bytes, readers, expected):
    number = image_set_builder.examples_per_shard(
        examples=examples, record_bytes=record_bytes, readers=readers
    )
    lengths = write(tmp_path, [10] * examples, examples_per_shard={"train": number})
    assert sum(lengths) == examples
    assert sorted(set(lengths)) == expected
    assert len(lengths) >= min(readers, examples)
    assert max(lengths) * record_bytes <= image_set_builder.SHARD_BYTES


def test_records_larger_than_foreseen_do_not_make_shards_so(tmp_path, monkeypatch):
    monkeypatch.setattr(image_set_builder, "MOST_SHARD_BYTES", 10_000)
    lengths = write(tmp_path, [3000] * 10, examples_per_shard={"train": 5})
    assert lengths == [3, 2, 3, 2]
    sizes = [path.stat().st_size for path in tmp_path.rglob("*tfrecord*")]
    assert len(sizes) == 4 and max(sizes) < 11_000


def test_what_is_written_is_read_by_tfds(tmp_path):
    write(tmp_path, [50, 100, 150], examples_per_shard={"train": 2})
    builder = tfds.builder_from_directory(prepared_dataset.find_dataset("raw", tmp_path))
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert [example["name"] for example in examples] == [b"0", b"1", b"2"]
    assert [example["image"].shape for example in examples] == [(1, 10, 5), (1, 20, 5), (1, 30, 5)]
    assert builder.info.splits["train"].num_examples == 3
    (tmp_path / "raw").rename(tmp_path / "elsewhere")  # a copied data set is one too


def test_a_signal_leaves_nothing_and_repeating_works(tmp_path):
    source = fill(tmp_path / "source", 60, size=300)
    data_dir = tmp_path / "datasets"
    command = [sys.executable, "-m", "data.prepare", "--layout=single", "--name=made", "--threads=1"]
    command += [f"--source={source}", f"--data_dir={data_dir}"]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(data_dir.glob(".incomplete_made_*/**/*tfrecord*")):
        assert program.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out, os.path.exists(data_dir)) == (1, "", False)
    assert err.strip().endswith("interrupted: no data set was written; start again")
    report = prepare(layout="single", source=source, name="made", data_dir=data_dir)
    assert sum(report.examples.values()) == 60
    assert os.listdir(data_dir) == ["made"]
    assert set(os.listdir(tmp_path)) == {"source", "datasets"}
