"""Folders of real pictures prepared as they lie there, where a folder of them is named."""

import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data.prepare import prepare


def link_some(real_images, folder, source, count):
    source.mkdir(parents=True)
    for path in sorted(pathlib.Path(real_images, folder).iterdir())[:count]:
        (source / path.name).symlink_to(path)


def stored(report, split, **options):
    builder = tfds.builder_from_directory(report.directory)
    examples = builder.as_dataset(split=split, **options).as_numpy_iterator()
    return {example.pop("name").decode(): example for example in examples}


def test_noisy_photos_are_paired_by_patterns_and_divided_by_scene(real_images, tmp_path):
    report = prepare(
        layout="paired",
        source=pathlib.Path(real_images, "polyu_noise"),
        name="noise",
        data_dir=tmp_path,
        match_a="(.*)_real",
        match_b="(.*)_mean",
        group=r"_(\d+_\d+_[a-z]+)_\d+$",
        test_fraction=0.2,
    )
    files = len(list(pathlib.Path(real_images, "polyu_noise").iterdir()))
    assert sum(report.examples.values()) == files / 2
    assert (report.kept, report.skipped, report.duplicates) == (files, (), ())
    splits = [set(stored(report, split)) for split in report.examples]
    scenes = [{re.search(r"_(\d+_\d+_[a-z]+)_\d+$", name)[1] for name in names} for names in splits]
    assert len(scenes) == 3
    assert not scenes[0] & scenes[1] and not scenes[0] & scenes[2] and not scenes[1] & scenes[2]


def test_horses_and_zebras(real_images, tmp_path):
    for split in ("trainA", "trainB", "testA", "testB"):
        link_some(real_images, f"horse2zebra/{split}", tmp_path / "source" / split, 4)
    report = prepare(layout="unpaired", source=tmp_path / "source", name="horses", data_dir=tmp_path / "sets")
    assert report.examples == {"trainA": 4, "trainB": 4, "testA": 4, "testB": 4}
    assert not report.skipped and not report.duplicates and not report.domain_channels
    path = sorted(pathlib.Path(real_images, "horse2zebra/testB").iterdir())[2]
    bytes_only = {"image": tfds.decode.SkipDecoding()}
    assert stored(report, "testB", decoders=bytes_only)[path.stem]["image"] == path.read_bytes()


def test_odd_files_are_taken_or_named(real_images, tmp_path):
    source = pathlib.Path(real_images, "odd_files")
    report = prepare(
        layout="single", source=source, name="odd", data_dir=tmp_path, val_fraction=0, test_fraction=0
    )
    left_out = {line.split(": ")[0] for line in report.skipped}
    expected = ["_blobs_3d_fiji_skeleton.tif", "multipage.tif", "multipage_rgb.tif", "truncated.jpg"]
    assert sorted(pathlib.Path(path).name for path in left_out) == expected
    names = {path.stem for path in source.iterdir()} - {pathlib.Path(name).stem for name in expected}
    examples = stored(report, "train")
    assert set(examples) == names
    # Among them is one of 16 bits and one with transparency, so all are stored so: white stays white.
    assert {example["image"].dtype.name for example in examples.values()} == {"uint16"}
    shown = np.asarray(Image.open(source / "chessboard_GRAY.png").convert("L"))
    image = examples["chessboard_GRAY"]["image"]
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], shown.astype(np.uint16) * 257)
    np.testing.assert_array_equal(image[..., 3], 65535)
