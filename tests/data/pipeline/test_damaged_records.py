"""Damaged records on disk: named by file, index and reason, or skipped and replaced."""

import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from data.errors import DataError
from data.pairs import PairedImages
from data.pipeline import damaged_records
from data.supply import Supply
from data.tfrecords.prepared_dataset import Shard

TRAINED_ON = 22  # of 23; the last is held out


@pytest.fixture
def file_of_ten(tmp_path):
    """A TFRecord file of ten records of different lengths: its path and where each record begins."""
    path, begins, end = str(tmp_path / "ten.tfrecord"), [], 0
    with tf.io.TFRecordWriter(path) as file:
        for number in range(10):
            file.write(bytes([number]) * (100 + 37 * number))
            begins.append(end)
            end += 8 + 4 + 100 + 37 * number + 4
    return pathlib.Path(path), begins


def flip(path, place):
    """Changes one bit of a file."""
    contents = bytearray(path.read_bytes())
    contents[place] ^= 4
    path.write_bytes(contents)


def offsets(path, records=10):
    return damaged_records.record_offsets(
        Shard(path=str(path), skip_records=0, records=records, first_id=0)
    ).tolist()


def test_offsets_are_where_the_records_begin(file_of_ten):
    path, begins = file_of_ten
    assert offsets(path) == begins


@pytest.mark.parametrize("number", [0, 4, 9])
@pytest.mark.parametrize("byte", [0, 7, 9])
def test_a_damaged_length_costs_one_record(file_of_ten, number, byte):
    path, begins = file_of_ten
    flip(path, begins[number] + byte)
    assert offsets(path) == [*begins[:number], -1, *begins[number + 1 :]]


def test_damage_inside_a_record_moves_nothing(file_of_ten):
    path, begins = file_of_ten
    flip(path, begins[3] + 50)
    assert offsets(path) == begins


def test_a_header_is_found_across_chunks(file_of_ten):
    path, begins = file_of_ten
    with tf.io.gfile.GFile(str(path), "rb") as file:
        for start in range(begins[1] + 1, begins[2] + 1, 5):
            found = damaged_records._next_header(file, start, path.stat().st_size, chunk_bytes=16)
            assert found == begins[2]


def test_two_damaged_lengths_in_a_row_are_too_much(file_of_ten):
    path, begins = file_of_ten
    flip(path, begins[4])
    flip(path, begins[5])
    with pytest.raises(DataError, match="ten.tfrecord: too damaged"):
        offsets(path)


@pytest.fixture
def copy(small_set, tmp_path):
    """A copy of the small set: its folder, and its second training shard, which holds ids 4 to 7."""
    shutil.copytree(small_set, tmp_path / "copy")
    return str(tmp_path / "copy"), next((tmp_path / "copy").rglob("small-train.tfrecord-00001*"))


def pairs(data_dir, **supply):
    return PairedImages(
        dataset="small",
        data_dir=data_dir,
        load_size=36,
        crop_size=32,
        seed=5,
        supply=Supply(window_bytes=40_000, **supply),
    )


def drawn(source, count, *, rows=None, position_examples=0):
    """Ids and inputs of the first examples of a stream."""
    ids, inputs = [], []
    stream = source.batches(position_examples=position_examples, global_batch=2, rows=rows)
    for batch in stream.take(count):
        ids.extend(batch["id"].numpy().tolist())
        inputs.extend(batch["input"].numpy())
    return ids, inputs


def begin_of(path, index):
    """Where a record of a shard begins, from the lengths alone."""
    contents, place = path.read_bytes(), 0
    for _ in range(index):
        place += 16 + struct.unpack_from("<Q", contents, place)[0]
    return place


def break_picture(path, index):
    """Makes a record whose checksums are right and whose picture B cannot be decoded."""
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[index])
    picture = example.features.feature["B"].bytes_list.value[0]
    example.features.feature["B"].bytes_list.value[0] = picture[:40] + bytes(len(picture) - 40)
    records[index] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)


def test_a_damaged_record_stops_with_file_index_and_reason(copy):
    flip(copy[1], begin_of(copy[1], 2) + 60)
    source = pairs(copy[0])
    with pytest.raises(tf.errors.DataLossError):
        drawn(source, TRAINED_ON)
    with pytest.raises(DataError, match=r"train.tfrecord-00001: record 2 is damaged .*checksum"):
        source.check_records("train", 0)


def test_a_picture_that_cannot_be_decoded_stops_likewise(copy):
    break_picture(copy[1], 3)
    source = pairs(copy[0])
    with pytest.raises(tf.errors.InvalidArgumentError):
        drawn(source, TRAINED_ON)
    with pytest.raises(DataError, match="train.tfrecord-00001: record 3 is damaged .*decoded"):
        source.check_records("train", 0)


def test_a_sound_split_passes_the_check(small_set):
    pairs(small_set).check_records("train", 5)
    pairs(small_set).check_records("test")


@pytest.mark.parametrize("harm", ["data", "length", "picture"])
def test_skipped_records_are_replaced_by_the_next(copy, small_set, harm):
    if harm == "picture":
        break_picture(copy[1], 2)
    else:
        flip(copy[1], begin_of(copy[1], 2) + (60 if harm == "data" else 1))
    ids, _ = drawn(pairs(small_set), TRAINED_ON)  # 2 epochs, in batches of 2
    source = pairs(copy[0], on_bad_record="skip", largest_bad_share=0.1)
    found, _ = drawn(source, TRAINED_ON)
    assert found == [7 if i == 6 else i for i in ids]  # record 2 of the shard is example 6
    assert len(source.notes()) == 1
    assert "train.tfrecord-00001: record 2 is damaged" in source.notes()[0]
    tail, _ = drawn(source, 3, position_examples=11)
    assert tail == found[11:17]
    source.check_records("train", 0)  # fewer than the share: whatever failed, it was not reading


def test_skipping_changes_no_pixel_of_the_others(copy, small_set):
    flip(copy[1], begin_of(copy[1], 2) + 60)
    ids, inputs = drawn(pairs(small_set), 11)
    _, found = drawn(pairs(copy[0], on_bad_record="skip", largest_bad_share=0.1), 11)
    for example_id, x, y in zip(ids, inputs, found, strict=True):
        assert np.array_equal(x, y) == (example_id != 6)


def test_more_than_the_share_stops(copy):
    for index in (0, 2):
        flip(copy[1], begin_of(copy[1], index) + 60)
    source = pairs(copy[0], on_bad_record="skip", largest_bad_share=0.05)  # one of 22
    with pytest.raises(tf.errors.InvalidArgumentError, match="damaged records"):
        drawn(source, TRAINED_ON)
    with pytest.raises(DataError, match="and 1 more of 22 examples, which is more than largest_bad_share"):
        source.check_records("train", 0)


def test_a_cache_cannot_be_made_of_damaged_records(copy):
    flip(copy[1], begin_of(copy[1], 2) + 60)
    for cache in ("memory", "disk"):
        with pytest.raises(DataError, match="record 2 is damaged .*checksum"):
            pairs(copy[0], cache=cache).batches(position_examples=0, global_batch=2)


def test_evaluation_leaves_damaged_records_out(copy):
    test_shard = next(pathlib.Path(copy[0]).rglob("small-test.tfrecord-*"))
    flip(test_shard, begin_of(test_shard, 1) + 60)
    batches = pairs(copy[0], on_bad_record="skip").evaluation("test", batch=2)
    assert [i for batch in batches for i in batch["id"].numpy().tolist()] == [0, 2, 3, 4]


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(small_set):
    source = pairs(small_set, max_pixels=1900)  # the largest of the small set has 60 x 34 = 2040
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 1900 pixels"):
        drawn(source, TRAINED_ON)
    pairs(small_set, max_pixels=2304).check_records("train")  # 48 x 48
