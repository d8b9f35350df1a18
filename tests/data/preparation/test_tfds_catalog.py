"""Public data sets: taken as TFDS prepared them, or prepared by TFDS itself."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data import prepare
from data.errors import DataError
from data.preparation import tfds_catalog
from data.tfrecords import image_encoding, prepared_dataset

SPLITS = {"trainA": 5, "trainB": 3, "testA": 2, "testB": 1}


def pixels(split, index):
    return np.random.default_rng([list(SPLITS).index(split), index]).integers(0, 256, (16, 16, 3), np.uint8)


class CycleGAN(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes what TFDS's builder of this name does, from made-up images."""

    name = "cycle_gan"
    VERSION = tfds.core.Version("3.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="horse2zebra", version="3.0.0")]

    def _info(self):
        label = tfds.features.ClassLabel(names=["A", "B"])
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        for index in range(SPLITS[split]):
            yield index, {"image": pixels(split, index), "label": split[-1]}


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A data_dir with cycle_gan/horse2zebra as TFDS leaves it."""
    data_dir = tmp_path_factory.mktemp("datasets")
    builder = CycleGAN(config="horse2zebra", data_dir=data_dir)
    os.makedirs(builder.data_dir)
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=2)
    writer.initialize_splits(list(SPLITS))
    for split in SPLITS:
        writer.add_examples({split: [example for _, example in builder._generate_examples(split)]})
    writer.close_all()
    return data_dir


def contents(folder):
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_prepared_data_set_is_taken_as_it_is(public, run_prepare):
    before = contents(public)
    code, out, err = run_prepare("tfds", name="cycle_gan/horse2zebra", data_dir=public, source="")
    assert (code, err) == (0, "")
    assert f"prepared  cycle_gan/horse2zebra in {public}/cycle_gan/horse2zebra/3.0.0" in out
    assert "trainA 5 in 3 files, trainB 3 in 2 files, testA 2 in 1 file, testB 1 in 1 file" in out
    assert "feature   image: uint8, 3 channels, values 0 to 255" in out
    assert """'--gin_param=DATASET = "cycle_gan/horse2zebra"'""" in out
    assert contents(public) == before


@pytest.mark.parametrize("source", ["", "cycle_gan/horse2zebra", "cycle_gan/horse2zebra/3.0.0"])
def test_a_prepared_data_set_that_lies_elsewhere(public, tmp_path, source):
    report = prepare.prepare(
        layout="tfds", name="cycle_gan/horse2zebra", source=public / source, data_dir=tmp_path
    )
    assert report.examples == SPLITS
    assert (report.dataset, report.data_dir) == ("cycle_gan/horse2zebra", str(public))
    assert report.other_features == ("label",)
    assert os.listdir(tmp_path) == []
    opened = prepared_dataset.open_dataset(report.dataset, report.data_dir)
    assert image_encoding.format_of(opened.features["image"]) == report.features["image"]


@pytest.mark.parametrize(
    "source, match", [("nowhere", "no such folder"), (".", "holds no prepared data set")]
)
def test_a_source_without_the_data_set(tmp_path, source, match):
    with pytest.raises(DataError, match=match):
        prepare.prepare(layout="tfds", name="cycle_gan/horse2zebra", source=tmp_path / source)


def fail(error):
    def download(self, **settings):
        raise error

    return download


@pytest.mark.parametrize(
    "error, words",
    [
        (ConnectionError("Name or service not known"), "Name or service not known"),
        (tfds.download.DownloadError("Failed to get url X. HTTP code: 503."), "HTTP code: 503"),
        (ModuleNotFoundError("No module named 'x'"), "needs a further package for it (No module named 'x')"),
    ],
)
def test_no_network(tmp_path, run_prepare, monkeypatch, error, words):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail(error))
    code, _, err = run_prepare("tfds", name="cycle_gan/horse2zebra", source="")
    assert (code, err.count("\n")) == (2, 1)
    assert "data set 'cycle_gan/horse2zebra': " in err and words in err
    if "package" not in words:
        assert f"copy its folder to {tmp_path}/datasets/cycle_gan/horse2zebra" in err


@pytest.mark.parametrize(
    "name, words",
    [
        ("cycle_gan_of_mine", "TFDS knows no data set of this name"),
        ("cycle_gan/horse2tiger", "BuilderConfig horse2tiger not found"),
        ("../cycle_gan", "not a name"),
    ],
)
def test_names_that_do_not_exist(tmp_path, run_prepare, name, words):
    code, out, err = run_prepare("tfds", name=name, source="")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "datasets").exists() or not os.listdir(tmp_path / "datasets")


def test_options_of_images_are_refused(public, run_prepare):
    settings = {"name": "cycle_gan/horse2zebra", "data_dir": public, "source": ""}
    for option in ({"group": "(a)"}, {"strict": True}, {"val_fraction": 0.2}, {"video_size": "8x8"}):
        code, _, err = run_prepare("tfds", **settings, **option)
        assert code == 2 and "layout tfds: takes name, data_dir and source only" in err


def test_tfds_prepares_it_itself(tmp_path, monkeypatch):
    """TFDS's own builder of CycleGAN's sets, given an unpacked archive where it would download one."""
    for split, count in SPLITS.items():
        (tmp_path / "unpacked" / "horse2zebra" / split).mkdir(parents=True)
        for index in range(count):
            path = tmp_path / "unpacked" / "horse2zebra" / split / f"{index}.png"
            Image.fromarray(pixels(split, index)).save(path)
    pytest.importorskip("importlib_resources", reason="TFDS needs it to prepare anything")
    asked = []

    def unpacked(self, url):
        asked.append(url)
        return os.fspath(tmp_path / "unpacked")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", unpacked)
    data_dir = tmp_path / "datasets"
    report = tfds_catalog.prepare_public(name="cycle_gan/horse2zebra", data_dir=data_dir)
    assert report.examples == SPLITS and len(asked) == 1 and asked[0].endswith("horse2zebra.zip")
    assert {path.name for path in data_dir.iterdir()} <= {"cycle_gan", "downloads"}
    builder = tfds.builder_from_directory(report.directory)
    stored = [example["image"] for example in builder.as_dataset(split="testA").as_numpy_iterator()]
    assert sorted(image.tobytes() for image in stored) == sorted(
        pixels("testA", k).tobytes() for k in range(2)
    )
    again = tfds_catalog.prepare_public(name="cycle_gan/horse2zebra", data_dir=data_dir)
    assert again == report and len(asked) == 1
