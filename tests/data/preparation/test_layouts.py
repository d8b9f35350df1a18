"""What becomes of everything people have in their folders."""

import os
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data.errors import DataError
from data.formats.raw_video import VideoFormat
from data.preparation.folder_reader import FolderReader
from data.preparation.layouts import LAYOUTS
from data.prepare import prepare
from data.tfrecords import prepared_dataset


def noise(seed=0, channels=3, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), np.uint8)


def place(folder, *names):
    """Makes files; a layout looks at names alone."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"anything")


def read(layout, folder, **settings):
    """({side: names}, FolderReader) of a folder."""
    reader = FolderReader(**settings)
    sides = LAYOUTS[layout].read(reader, str(folder))
    return {side: [example.name for example in found] for side, found in sides.items()}, reader


# What is in the folder -> the name under which it is stored, or words of the reason why it is not.
STORED = {
    "with two  spaces.png": "with two  spaces",
    "ünïcödé 画.png": "ünïcödé 画",
    unicodedata.normalize("NFD", "décomposé.png"): "décomposé",
    "-leading-dash.png": "-leading-dash",
    "--strict.png": "--strict",
    "UPPER.PNG": "UPPER",
    "two.dots.png": "two.dots",
    "link.png": "link",
    "grey.png": "grey",
    "new\nline.png": "new\nline",
}
LEFT_OUT = {
    "empty.png": "is empty",
    "folder.png": "is not a file (a folder or device)",
    "nowhere.png": "does not exist, or is a broken link",
    "loop.png": "link",
    "text.png": "not an image in a supported format",
    "same.jpg": "and same.png have the same name, 'same'",
    "film.mp4": "",
    os.fsdecode(b"latin\xe9.png"): "the name is not valid UTF-8",
}
IGNORED = {"notes.txt", "Thumbs.db", "noextension"}


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """The report and the stored examples of a folder of all that, side by side with good images."""
    folder = tmp_path_factory.mktemp("odd") / "my images"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder.mkdir()
    for seed, name in enumerate(STORED):
        if name == "link.png":
            Image.fromarray(noise(seed)).save(elsewhere / "target.png")
            (folder / name).symlink_to(elsewhere / "target.png")
        else:
            pixels = noise(seed, 1).squeeze() if name == "grey.png" else noise(seed)
            Image.fromarray(pixels).save(folder / name)
    for name in ("same.jpg", "same.png", *IGNORED, "text.png", "film.mp4", os.fsdecode(b"latin\xe9.png")):
        (folder / name).write_bytes(b"hello")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "loop.png").symlink_to("loop.png")
    for name in (".hidden.png", "._resource.png"):
        (folder / name).write_bytes(b"hello")
    (folder / ".cache").mkdir()
    data_dir = tmp_path_factory.mktemp("datasets")
    report = prepare(
        layout="single", source=folder, name="odd", data_dir=data_dir, val_fraction=0, test_fraction=0
    )
    builder = tfds.builder_from_directory(prepared_dataset.find_dataset("odd", data_dir))
    examples = builder.as_dataset(split="train").as_numpy_iterator()
    return report, {example["name"].decode(): example["image"] for example in examples}


@pytest.mark.parametrize("file, name", STORED.items())
def test_stored(odd_folder, file, name):
    seed = list(STORED).index(file)
    pixels = noise(seed, 1).repeat(3, axis=-1) if file == "grey.png" else noise(seed)
    np.testing.assert_array_equal(odd_folder[1][name], pixels)


@pytest.mark.parametrize("file, reason", LEFT_OUT.items())
def test_left_out(odd_folder, file, reason):
    found = [line for line in odd_folder[0].skipped if file in line or repr(file)[1:-1] in line]
    assert len(found) == 1 and reason in found[0]


def test_nothing_else_is_stored_or_left_out(odd_folder):
    report, examples = odd_folder
    assert set(examples) == set(STORED.values())
    assert report.examples == {"train": len(STORED)}
    assert len(report.skipped) == len(LEFT_OUT)
    assert {os.path.basename(path) for path in report.ignored} == IGNORED
    str(report).encode()  # can be printed, whatever the names


def test_a_folder_may_be_a_link_and_begin_with_a_dash(tmp_path, monkeypatch):
    place(tmp_path / "real", "A/1.png", "other/1.png")
    (tmp_path / "-source").mkdir()
    (tmp_path / "-source" / "A").symlink_to(tmp_path / "real" / "A")
    (tmp_path / "-source" / "B").symlink_to(tmp_path / "real" / "other")
    monkeypatch.chdir(tmp_path)
    assert read("paired", "-source")[0] == {"": ["1"]}


def test_paired_takes_the_first_of_the_alphabet_as_a(tmp_path):
    place(tmp_path, "noisy/x.jpg", "noisy/y.jpg", "clean/x.png", "clean/y.tif")
    reader = FolderReader()
    pairs = LAYOUTS["paired"].read(reader, str(tmp_path))[""]
    found = [[os.path.relpath(ref.path, tmp_path) for ref in pair.images] for pair in pairs]
    assert found == [["clean/x.png", "noisy/x.jpg"], ["clean/y.tif", "noisy/y.jpg"]]
    assert not reader.skipped


def test_pairs_of_one_folder_by_patterns(tmp_path):
    place(tmp_path, "s1_real.JPG", "s1_mean.JPG", "s2_mean.png", "s2_real.JPG", "s3_real.JPG", "cover.JPG")
    names, reader = read("paired", tmp_path, match_a="(.*)_real", match_b="(.*)_mean")
    assert names == {"": ["s1", "s2"]}
    reasons = [reason for _, reason in reader.skipped]
    assert len(reasons) == 2
    assert "cover.JPG: matches neither match_a nor match_b" in reasons[0]
    assert "s3_real.JPG: has no partner named 's3'" in reasons[1]


def test_a_name_that_fits_both_patterns(tmp_path):
    place(tmp_path, "1_a.png", "1_b.png", "2_a_b.png")
    names, reader = read("paired", tmp_path, match_a="(.*)_a.*", match_b="(.*)_b")
    assert names == {"": ["1"]}
    assert "2_a_b.png: matches both match_a and match_b" in reader.skipped[0].reason


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"match_a": "(.*)_a"}, "only one of them.*give both or neither"),
        ({"match_a": "(.*_a", "match_b": "(.*)_b"}, "match_a = .*not a regular expression"),
        ({"match_a": "(.*)_a", "match_b": ".*_b"}, "match_b = .*has no group"),
    ],
)
def test_patterns_that_cannot_be_used(settings, match):
    with pytest.raises(DataError, match=match):
        FolderReader(**settings)


@pytest.mark.parametrize(
    "match_a, match_b, expected",
    [
        ("(.*)_raw", "(.*)_b", r"match_a = '\(\.\*\)_raw': matches no file of .*, such as 1_a.png; change"),
        ("(.*)_a", "(.*)_b.png", "match_b = .*matches no file.*without its extension"),
    ],
)
def test_a_pattern_that_fits_no_file(tmp_path, match_a, match_b, expected):
    place(tmp_path, "1_a.png", "1_b.png", "2_a.png")
    with pytest.raises(DataError, match=f"^{expected}"):
        read("paired", tmp_path, match_a=match_a, match_b=match_b)


def test_a_name_that_several_files_have_is_one_refusal(tmp_path):
    place(tmp_path, "A/1.png", "A/1.jpg", "A/1.bmp", "B/1.png", "A/2.png", "B/2.png")
    names, reader = read("paired", tmp_path)
    assert names == {"": ["2"]}
    assert [name for name, _ in reader.skipped] == ["1"]
    assert "1.bmp: and 1.jpg, 1.png have the same name" in reader.skipped[0].reason


def test_frames_of_raw_video_are_examples(tmp_path):
    frame = bytes(8 * 4 * 3 // 2)
    for side, frames in (("clean", 3), ("noisy", 2)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "walk.yuv").write_bytes(frame * frames)
        (tmp_path / side / "still.yuv").write_bytes(frame)
    names, reader = read("paired", tmp_path, video=VideoFormat(size=(8, 4)))
    assert names == {"": ["still", "walk_f0000", "walk_f0001"]}
    assert "clean/walk.yuv: has no partner named 'walk_f0002'" in reader.skipped[0].reason
    with pytest.raises(DataError, match="still.yuv: a .yuv file does not state its frame size"):
        read("paired", tmp_path)
    names, _ = read("single", tmp_path / "noisy", video=VideoFormat(size=(8, 4)))
    assert names == {"": ["still", "walk_f0000", "walk_f0001"]}


def test_patterns_pair_raw_videos(tmp_path):
    for name in ("hall_in", "hall_out"):
        (tmp_path / f"{name}.yuv").write_bytes(bytes(8 * 4 * 3))
    settings = {
        "match_a": "(.*)_in",
        "match_b": "(.*)_out",
        "video": VideoFormat(size=(8, 4), pixel_format="yuv444p"),
    }
    assert read("paired", tmp_path, **settings)[0] == {"": ["hall"]}


def test_unpaired_sides_have_their_own_examples(tmp_path):
    place(tmp_path, "horses/1.png", "horses/2.png", "horses/3.png", "zebras/1.png", "zebras/x.png")
    names, reader = read("unpaired", tmp_path)
    assert names == {"A": ["1", "2", "3"], "B": ["1", "x"]}
    assert not reader.skipped


@pytest.mark.parametrize("layout", ["paired", "unpaired"])
def test_three_folders_are_no_two_sides(tmp_path, layout):
    place(tmp_path, "A/1.png", "B/1.png", "C/1.png")
    with pytest.raises(DataError, match=f"layout {layout} needs exactly two.*found A, B, C"):
        read(layout, tmp_path)


@pytest.mark.parametrize("layout", ["paired", "unpaired"])
@pytest.mark.parametrize("names", [("Test", "Train"), ("training", "validation"), ("TRAIN", "VAL")])
def test_folders_named_as_splits_are_no_two_sides(tmp_path, layout, names):
    """Otherwise training and test images of the same number become pairs."""
    place(tmp_path, *(f"{name}/1.png" for name in names))
    with pytest.raises(DataError, match=f"{names[0]}, {names[1]} look like splits.*rename"):
        read(layout, tmp_path)


def test_one_folder_named_as_a_split_is_a_side(tmp_path):
    place(tmp_path, "Eval/1.png", "Masks/1.png")
    assert read("paired", tmp_path)[0] == {"": ["1"]}
