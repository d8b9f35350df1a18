"""What people have in their folders: refused in one line with exit code 2, or understood."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data.tfrecords import prepared_dataset

ROOT = pathlib.Path(__file__).parents[3]


def noise(seed=0, height=16, width=16, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture
def refused(run_prepare, tmp_path):
    """Asserts that a source is refused in one line that says the given words; nothing is written."""

    def check(*words, layout="side_by_side", **settings):
        code, out, err = run_prepare(layout, **settings)
        assert code == 2
        assert out == "" and err.count("\n") == 1
        for word in words:
            assert word in err
        assert not (tmp_path / "datasets").exists() or not os.listdir(tmp_path / "datasets")

    return check


@pytest.fixture
def left_out(run_prepare, refused):
    """Asserts that a source loses examples for a reason that says the given words, or all with --strict."""

    def check(*words, layout="side_by_side", count=1, **settings):
        settings = {"val_fraction": 0, "test_fraction": 0} | settings
        refused(*words, "nothing was written", layout=layout, strict=True, **settings)
        code, out, err = run_prepare(layout, **settings)
        assert code == 0
        assert f"skipped   {count} example" in out
        for word in words:
            assert word in out
        assert err == ""
        return out

    return check


def test_missing_source(refused, tmp_path):
    refused(f"{tmp_path}/source: no such folder")


def test_source_that_is_a_file(refused, save):
    refused("no such folder", source=save("a.png", noise()))


def test_empty_source(refused, tmp_path):
    (tmp_path / "source").mkdir()
    refused("holds no images; give the folder")


def test_source_without_images(refused, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "readme.txt").write_text("soon")
    refused("holds no images; give the folder")


def test_empty_split(refused, save, tmp_path):
    save("train/a.png", noise())
    (tmp_path / "source" / "val").mkdir()
    refused("source/val: holds no images; add some or remove the folder")


@pytest.mark.parametrize("name", ["Facades", "1st", "a-b", "a/b", "", "synthetic_facades"])
def test_names(refused, save, name):
    save("a.png", noise())
    refused("name", name=name)


def test_unknown_layout(refused, save):
    save("a.png", noise())
    refused("--layout", "side_by_side|paired", layout="sideways")


@pytest.mark.parametrize("fractions", [{"val_fraction": -0.1}, {"val_fraction": 0.6, "test_fraction": 0.4}])
def test_fractions(refused, save, fractions):
    save("a.png", noise())
    refused("val_fraction = ", "less than 1", **fractions)


def test_fractions_that_leave_nothing(refused, save):
    save("a.png", noise())
    refused("leaves no training examples", val_fraction=0.9, test_fraction=0)


def test_flags_that_do_not_exist_or_are_missing(refused):
    refused("layuot", layuot="paired")
    refused("--val_fraction", val_fraction="some")
    refused("--source: is missing; give --layout, --source and --name", source="")


def test_data_dir_that_is_a_file(refused, save, run_prepare, tmp_path):
    save("a.png", noise())
    (tmp_path / "file").write_text("")
    refused(str(tmp_path / "file"), data_dir=tmp_path / "file", val_fraction=0, test_fraction=0)


def test_odd_width(refused, left_out, save):
    save("train/odd.png", noise(0, 16, 17))
    words = ["train/odd.png: is 17 pixels wide", "even width"]
    refused(*words, "leaves no training examples")
    save("train/even.png", noise(0, 16, 18))
    left_out(*words)


def test_stray_folders_and_files(refused, save):
    save("train/a.png", noise())
    save("validation/a.png", noise())
    refused("source/validation: is beside the folders train")


def test_folder_among_images(refused, save):
    save("train/a.png", noise())
    save("train/more/b.png", noise())
    refused("train/more: a folder among the images")


def test_no_train_folder(refused, save):
    save("test/a.png", noise())
    refused("no folder 'train'")


def test_unmatched_partner(left_out, save):
    for path in ("A/1.png", "A/2.png", "B/1.jpg", "B/3.png"):
        save(f"train/{path}", noise())
    words = ["train/A/2.png: has no partner named '2' in", "train/B; add or remove one"]
    out = left_out(*words, layout="paired", count=2)
    assert "train/B/3.png: has no partner named '3' in" in out and "train 1 in 1 file" in out


def test_no_pair_at_all(refused, save):
    save("A/1.png", noise())
    save("B/2.png", noise())
    refused("source/A: has no pair", "source/B", layout="paired")


def test_partners_of_different_size(refused, left_out, save):
    save("A/1.png", noise(0, 16, 18))
    save("B/1.png", noise(0, 16, 16))
    words = ["A/1.png: is 18x16", "B/1.png is 16x16", "same size"]
    refused(*words, "leaves no training examples", layout="paired")
    for side in "AB":
        save(f"{side}/2.png", noise())
    left_out(*words, layout="paired")


def test_same_name_twice(left_out, save):
    for path in ("A/1.png", "A/1.jpg", "B/1.png", "A/2.png", "B/2.png"):
        save(path, noise())
    left_out("A/1.jpg: and 1.png have the same name, '1'", layout="paired")


@pytest.mark.parametrize("folders", [["A"], ["A", "B", "C"]])
def test_not_two_folders(refused, save, folders):
    for folder in folders:
        save(f"train/{folder}/1.png", noise())
    refused("exactly two sub-folders", f"found {', '.join(folders)}", layout="paired")


def test_images_beside_the_two_folders(refused, save):
    for path in ("A/1.png", "B/1.png", "loose.png"):
        save(path, noise())
    refused("found A, B, and loose.png beside them", layout="paired")


def test_truncated_image(left_out, save):
    save("train/good.jpg", noise(0, 64, 64))
    path = save("train/cut.jpg", noise(0, 64, 64))
    path.write_bytes(path.read_bytes()[:-2000])
    left_out("train/cut.jpg: damaged image", "remove or replace it")


def test_damaged_png(refused, left_out, save):
    path = save("cut.png", noise(0, 64, 64))
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 255
    path.write_bytes(damaged)
    # The header is whole, so that it is found out while writing.
    refused("cut.png: damaged image", "leaves no training examples", val_fraction=0, test_fraction=0)
    save("good.png", noise())
    left_out("cut.png: damaged image")


@pytest.mark.parametrize("content, reason", [(b"", "is empty"), (b"hello", "not an image")])
def test_not_an_image(left_out, save, content, reason):
    save("train/a.png", noise())
    save("train/b.png", noise()).write_bytes(content)
    left_out(f"train/b.png: {reason}")


def test_broken_link(left_out, save):
    path = save("train/a.png", noise())
    (path.parent / "b.png").symlink_to("nowhere.png")
    left_out("train/b.png: does not exist, or is a broken link")


def test_folder_in_the_place_of_an_image(left_out, save):
    path = save("train/a.png", noise())
    (path.parent / "b.png").mkdir()
    left_out("train/b.png: is not a file")


def test_unreadable_file(left_out, save, monkeypatch):
    # Tests may run as root, who may read everything: refuse in the place of the system.
    path = save("train/a.png", noise())
    save("train/b.png", noise(1))
    real_open = open

    def guarded(file, *args, **kwargs):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied")
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    left_out("train/a.png: permission denied; make it readable")


def test_too_many_pixels(left_out, save):
    save("train/a.png", noise())
    save("train/large.png", noise(0, 20, 20))
    left_out("train/large.png: ", "20x20", max_pixels=256)


def test_many_reasons_are_counted(run_prepare, save):
    save("good.png", noise())
    for k in range(8):
        save(f"{k}.png", noise()).write_bytes(b"")
    code, out, err = run_prepare(val_fraction=0, test_fraction=0)
    assert code == 0
    assert "skipped   8 examples" in out
    assert out.count(".png: is empty") == 5 and "and 3 more" in out
    assert err == ""  # once is enough


@pytest.mark.parametrize(
    "group, told",
    [
        ("(s)", "1 group, all for training; there is no val or test split"),
        ("_(.)", "2 groups, all for training; there is no val or test split"),
        ("(s.)", "6 groups, each in one split"),
    ],
)
def test_what_a_group_expression_came_to_is_told(run_prepare, save, group, told):
    for k in range(6):
        save(f"s{k}_{'ab'[k % 2]}.png", noise(k))
    code, out, _ = run_prepare("single", group=group, val_fraction=0.2, test_fraction=0.2)
    assert code == 0 and f"grouped   {told}\n" in out


@pytest.mark.parametrize(
    "data_dir, reason",
    [("", "is empty"), ("file", "file is not a folder"), ("file/sub/datasets", "file is not a folder")],
)
def test_folder_of_the_data_sets_that_cannot_be_made(run_prepare, save, tmp_path, data_dir, reason):
    save("a.png", noise())
    (tmp_path / "file").write_text("mine")
    path = str(tmp_path / data_dir) if data_dir else ""
    code, out, err = run_prepare("single", data_dir=path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"data_dir '{path}': ") and reason in err
    assert (tmp_path / "file").read_text() == "mine"


def test_all_reasons_are_kept_with_the_data_set(run_prepare, save, tmp_path):
    save("good.png", noise())
    paths = [save(f"{k}.png", noise()) for k in range(8)]
    for path in paths:
        path.write_bytes(b"")
    assert run_prepare(val_fraction=0, test_fraction=0)[0] == 0
    kept = prepared_dataset.open_dataset("made", str(tmp_path / "datasets")).metadata["refused"]
    assert [reason.split(": ")[0] for reason in sorted(kept)] == [str(path) for path in paths]


def test_integers_beside_floats(refused, save):
    save("a.png", noise())
    save("b.png", noise(1))
    save("c.tif", Image.fromarray(np.full((16, 16), 0.5, "f4")))
    refused("source/c.tif (beside ", "float32", layout="single")


def test_what_a_shell_sees(tmp_path, save):
    path = save("train/cut.jpg", noise(0, 64, 64))
    path.write_bytes(path.read_bytes()[:-2000])
    command = [sys.executable, "-m", "data.prepare", "--layout=side_by_side", "--name=made"]
    command += [f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'datasets'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"{path}: damaged image")
    assert done.stderr.count("\n") == 1
