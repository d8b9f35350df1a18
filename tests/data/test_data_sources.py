"""What people have in their folders: refused in one line with exit code 2, or understood."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


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
    refused("leaves nothing to train on", val_fraction=0.9, test_fraction=0)


def test_flags_that_do_not_exist_or_are_missing(refused):
    refused("layuot", layuot="paired")
    refused("--val_fraction", val_fraction="some")
    refused("no --source given; --layout, --source and --name are needed", source="")


def test_data_dir_that_is_a_file(refused, save, run_prepare, tmp_path):
    save("a.png", noise())
    (tmp_path / "file").write_text("")
    refused(str(tmp_path / "file"), data_dir=tmp_path / "file", val_fraction=0, test_fraction=0)


def test_odd_width(refused, save):
    save("train/odd.png", noise(0, 16, 17))
    refused("train/odd.png: is 17 pixels wide", "even width")


def test_stray_folders_and_files(refused, save):
    save("train/a.png", noise())
    save("validation/a.png", noise())
    refused("source/validation: stands beside the folders train")


def test_folder_among_images(refused, save):
    save("train/a.png", noise())
    save("train/more/b.png", noise())
    refused("train/more: a folder among the images")


def test_no_train_folder(refused, save):
    save("test/a.png", noise())
    refused("no folder 'train'")


def test_unmatched_partner(refused, save):
    for path in ("A/1.png", "A/2.png", "B/1.jpg"):
        save(f"train/{path}", noise())
    refused("train/A/2.png: has no partner named '2' in", "train/B", layout="paired")


def test_partners_of_different_size(refused, save):
    save("A/1.png", noise(0, 16, 18))
    save("B/1.png", noise(0, 16, 16))
    refused("A/1.png: is 18x16", "B/1.png is 16x16", "one size", layout="paired")


def test_same_name_twice(refused, save):
    for path in ("A/1.png", "A/1.jpg", "B/1.png"):
        save(path, noise())
    refused("A/1.png: and 1.jpg have one name, '1'", layout="paired")


@pytest.mark.parametrize("folders", [["A"], ["A", "B", "C"]])
def test_not_two_folders(refused, save, folders):
    for folder in folders:
        save(f"train/{folder}/1.png", noise())
    refused("exactly two sub-folders", f"found {', '.join(folders)}", layout="paired")


def test_images_beside_the_two_folders(refused, save):
    for path in ("A/1.png", "B/1.png", "loose.png"):
        save(path, noise())
    refused("found A, B, and loose.png beside them", layout="paired")


def test_truncated_image(refused, save):
    save("train/good.jpg", noise(0, 64, 64))
    path = save("train/cut.jpg", noise(0, 64, 64))
    path.write_bytes(path.read_bytes()[:-2000])
    refused("train/cut.jpg: damaged image", "remove or replace it")


def test_damaged_png(refused, save):
    path = save("cut.png", noise(0, 64, 64))
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 255
    path.write_bytes(damaged)
    refused("cut.png: damaged image", val_fraction=0, test_fraction=0)


@pytest.mark.parametrize("content, reason", [(b"", "is empty"), (b"hello", "not an image")])
def test_not_an_image(refused, save, content, reason):
    save("train/a.png", noise())
    save("train/b.png", noise()).write_bytes(content)
    refused(f"train/b.png: {reason}")


def test_broken_link(refused, save):
    path = save("train/a.png", noise())
    (path.parent / "b.png").symlink_to("nowhere.png")
    refused("train/b.png: is not there, or is a link to nothing")


def test_unreadable_file(refused, save, monkeypatch):
    # Tests may run as root, who may read everything: refuse in the place of the system.
    path = save("train/a.png", noise())
    real_open = open

    def guarded(file, *args, **kwargs):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied")
        return real_open(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    refused("train/a.png: permission denied; make it readable")


def test_transparent_image(refused, save):
    image = Image.fromarray(noise())
    image.putalpha(254)
    save("train/glass.png", image)
    refused("train/glass.png: has transparent parts; flatten it")


@pytest.mark.parametrize("name, dtype", [("a.png", "uint16"), ("a.tif", "uint16"), ("b.tif", "f4")])
def test_deep_images(refused, save, name, dtype):
    save(f"train/{name}", Image.fromarray(np.full((16, 16), 400, dtype)))
    refused(f"train/{name}: ", "convert it to 8-bit PNG")


def test_deep_colour(refused, save):
    # Pillow reads 16-bit colour as 8-bit without a word, and cannot write it.
    path = save("train/deep.png", noise())
    path.write_bytes(tf.io.encode_png(tf.zeros([16, 16, 3], tf.uint16)).numpy())
    refused("train/deep.png: has more than 8 bits a channel")


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
