"""A record damaged on disk, as a training run meets it."""

import pathlib
import shutil

import pytest

from data.errors import DataError
from data.pairs import PairedImages
from data.supply import Supply

SETTINGS = {"total_examples": 400, "batch_schedule": 40, "log_every": 40}


@pytest.fixture
def damaged(synthetic_datasets, tmp_path):
    """Folder of the embedded data set with one bit changed in the first record of its training file."""
    shutil.copytree(synthetic_datasets, tmp_path / "sets")
    shard = sorted(pathlib.Path(tmp_path / "sets").rglob("*train.tfrecord*"))[0]
    contents = bytearray(shard.read_bytes())
    contents[1000] ^= 1
    shard.write_bytes(contents)
    return str(tmp_path / "sets"), shard.name


def data(data_dir, **supply):
    supply = Supply(**supply)
    return PairedImages(
        dataset="synthetic_facades", data_dir=data_dir, load_size=32, crop_size=32, supply=supply
    )


def test_training_stops_and_names_the_record(make_trainer, small_pix2pix, damaged):
    trainer = make_trainer(small_pix2pix(), data(damaged[0]), **SETTINGS)
    with pytest.raises(DataError, match=f"{damaged[1]}: record 0 is damaged .its checksum is wrong."):
        trainer.run()


def test_training_goes_on_and_says_so(make_trainer, small_pix2pix, damaged):
    trainer = make_trainer(small_pix2pix(), data(damaged[0], on_bad_record="skip"), **SETTINGS)
    trainer.run()
    log = pathlib.Path(trainer.run_directory.path, "log.txt").read_text()
    assert log.count(f"{damaged[1]}: record 0 is damaged: the next record is used instead") == 1


def test_training_says_what_is_cached(make_trainer, small_pix2pix, synthetic_datasets):
    settings = SETTINGS | {"total_examples": 80}
    trainer = make_trainer(small_pix2pix(), data(synthetic_datasets, cache="memory"), **settings)
    trainer.run()
    log = pathlib.Path(trainer.run_directory.path, "log.txt").read_text()
    assert log.count("decoded images are cached in memory: 400 examples") == 1
