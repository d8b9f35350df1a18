"""Sources whose folders say the split, and A or B."""

import itertools
import os

import pytest

from data.errors import DataError
from data.preparation.folder_reader import FolderReader
from data.preparation.split_folders import read_split_folders

NAMINGS = {
    "inside": "{split}/{domain}",
    "joined": "{split}{domain}",  # of CycleGAN
    "underscore": "{split}_{domain}",  # of pix2pixHD
    "outside": "{domain}/{split}",  # of pix2pix, before its images are combined
}


@pytest.fixture
def read(tmp_path):
    """Places files and reads them: read(layout, *files) -> {split: {domain: paths of each example}}."""

    def read_files(layout, *files, reader=None):
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"anything")
        found = read_split_folders(layout, str(tmp_path), reader or FolderReader())
        return found and {
            split: {
                domain: [[os.path.relpath(ref.path, tmp_path) for ref in example.images] for example in some]
                for domain, some in of_split.items()
            }
            for split, of_split in found.items()
        }

    return read_files


@pytest.mark.parametrize("layout", ["paired", "unpaired"])
@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
def test_every_naming_of_two_domains_is_read_in_both_layouts(read, layout, naming):
    def path(split, domain, name):
        return f"{naming.format(split=split, domain=domain)}/{name}.png"

    files = [path(*each) for each in itertools.product(("train", "val"), "AB", ("0", "1"))]
    found = read(layout, *files)
    if layout == "paired":
        assert found == {
            split: {"": [[path(split, "A", name), path(split, "B", name)] for name in ("0", "1")]}
            for split in ("train", "val")
        }
    else:
        assert found == {
            split: {domain: [[path(split, domain, name)] for name in ("0", "1")] for domain in "AB"}
            for split in ("train", "val")
        }


def test_two_folders_of_any_names_may_hold_the_splits(read):
    found = read(
        "paired", "photos/train/1.jpg", "labels/train/1.png", "photos/test/2.jpg", "labels/test/2.png"
    )
    assert found == {
        "train": {"": [["labels/train/1.png", "photos/train/1.jpg"]]},
        "test": {"": [["labels/test/2.png", "photos/test/2.jpg"]]},
    }


def test_what_is_beside_the_images_is_noted(read):
    reader = FolderReader()
    read("paired", "A/train/1.png", "B/train/1.png", "notes.txt", "A/notes.txt", reader=reader)
    assert sorted(map(os.path.basename, reader.ignored)) == ["notes.txt", "notes.txt"]


@pytest.mark.parametrize(
    "files, match",
    [
        (["A/train/1.png", "B/val/1.png"], r"has A/train, B/val but no folder 'B/train'; add one"),
        (["A/train/1.png", "B/train/1.png", "A/val/1.png"], "but no folder 'B/val'"),
        (["A/train/1.png", "B/1.png"], "B/1.png: is beside the folders A/train, where only A/train, B/train"),
        (
            ["A/train/1.png", "B/train/1.png", "A/more/1.png"],
            "A/more: is beside the folders A/train, ",
        ),
        (["train_A/1.png", "trainB/1.png"], "train_A: is beside the folders trainB"),
        (["train_A/1.png", "train_B/1.png", "test_B/1.png"], "but no folder 'test_A'"),
    ],
)
def test_folders_that_are_missing_or_too_many(read, files, match):
    with pytest.raises(DataError, match=match):
        read("paired", *files)


@pytest.mark.parametrize("layout", ["single", "side_by_side"])
def test_layouts_of_one_folder_have_no_domains(read, layout):
    assert read(layout, "trainA/1.png", "trainB/1.png") is None


def test_a_source_without_folders_of_splits(read):
    assert read("paired", "A/1.png", "B/1.png") is None


def test_patterns_are_for_one_folder(read):
    reader = FolderReader(match_a="(.*)_a", match_b="(.*)_b")
    assert read("paired", "trainA/1_a.png", "trainB/1_b.png", reader=reader) is None
