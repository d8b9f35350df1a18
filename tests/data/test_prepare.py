"""Preparing folders: what is stored, how it is divided, and that all or nothing is written."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from data import prepare
from data.pairs import PairedImages
from data.pipeline import record_reader
from data.preparation import image_set_builder, tfds_writer
from data.tfrecords import image_decoding, image_encoding, prepared_dataset


def noise(seed, height=32, width=64, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def stored(data_dir, split="train", name="made"):
    """{name: example} of a split, read the way any user of TFDS would."""
    builder = tfds.builder_from_directory(prepared_dataset.find_dataset(name, data_dir))
    examples = builder.as_dataset(split=split).as_numpy_iterator()
    return {example.pop("name").decode(): example for example in examples}


def test_side_by_side_with_folders(save, run_prepare, tmp_path):
    for split, count in {"train": 5, "val": 2, "test": 3}.items():
        for k in range(count):
            save(f"{split}/{split}{k}.png", noise(10 * len(split) + k))
    code, out, err = run_prepare()
    assert (code, err) == (0, "")
    assert "examples  train 5 in 5 files, val 2 in 2 files, test 3 in 3 files" in out
    assert "feature   pair: uint8, 3 channels, values 0 to 255" in out
    assert "python -m engine.train --gin_file=gin/pix2pix.gin" in out
    assert """'--gin_param=DATASET = "made"'""" in out
    assert os.listdir(tmp_path / "datasets") == ["made"]
    examples = stored(tmp_path / "datasets")
    assert sorted(examples) == [f"train{k}" for k in range(5)]
    np.testing.assert_array_equal(examples["train3"]["pair"], noise(53))
    source = PairedImages(dataset="made", data_dir=str(tmp_path / "datasets"), load_size=0, crop_size=32)
    assert source.evaluation_split == "val"
    batch = next(iter(source.evaluation("test", batch=3)))
    assert batch["name"].numpy().tolist() == [b"test0", b"test1", b"test2"]
    np.testing.assert_array_equal(np.round((batch["input"][1] + 1) * 127.5), noise(41)[:, :32])
    np.testing.assert_array_equal(np.round((batch["target"][1] + 1) * 127.5), noise(41)[:, 32:])


def test_flat_source_is_divided_by_name(save, run_prepare, tmp_path):
    for k in range(20):
        save(f"{k}.png", noise(k))
    assert run_prepare(val_fraction=0.2, test_fraction=0.1)[0] == 0
    parts = {s: set(stored(tmp_path / "datasets", s)) for s in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [14, 4, 2]
    assert set.union(*parts.values()) == {str(k) for k in range(20)}
    assert run_prepare(val_fraction=0.2, test_fraction=0.1, name="again")[0] == 0
    for split, part in parts.items():
        assert set(stored(tmp_path / "datasets", split, "again")) == part


def test_paired_matches_by_stem_and_keeps_channels(save, run_prepare, tmp_path):
    for k in range(3):
        save(f"train/visible/{k}.png", noise(k, 30, 41))
        save(f"train/infrared/{k}.bmp", noise(9 + k, 30, 41, 1))
    code, out, _ = run_prepare("paired")
    assert code == 0
    assert "30 to 41 pixels high and wide; 3 stored unchanged, 3 re-encoded" in out
    for name, example in stored(tmp_path / "datasets").items():
        np.testing.assert_array_equal(example["A"], noise(9 + int(name), 30, 41, 1))
        np.testing.assert_array_equal(example["B"], noise(int(name), 30, 41))


def test_one_colour_image_makes_a_side_colour(save, run_prepare, tmp_path):
    for side, channels in {"A/0": 1, "A/1": 3, "B/0": 1, "B/1": 1}.items():
        save(f"{side}.png", noise(1, 16, 16, channels))
    assert run_prepare("paired", val_fraction=0, test_fraction=0)[0] == 0
    examples = stored(tmp_path / "datasets")
    assert examples["0"]["A"].shape == (16, 16, 3) and examples["0"]["B"].shape == (16, 16, 1)
    np.testing.assert_array_equal(examples["0"]["A"], np.repeat(noise(1, 16, 16, 1), 3, axis=-1))


def kinds(save):
    """One picture of every supported kind, and whether its bytes can stay: {path: bool}."""
    rgb = Image.fromarray(noise(0))
    grey = Image.fromarray(noise(0, channels=1).squeeze())
    rotated = Image.Exif()
    rotated[0x0112] = 6
    opaque = rgb.copy()
    opaque.putalpha(255)
    return {
        save("jpeg.jpg", rgb, quality=80): True,
        save("progressive.jpg", rgb, progressive=True, subsampling=2): True,
        save("grey.jpg", grey): True,
        save("cmyk.jpg", rgb.convert("CMYK")): True,
        save("rotated.jpg", rgb.resize((64, 32)), exif=rotated): False,
        save("rgb.png", rgb): True,
        save("palette.png", rgb.quantize(16)): True,
        save("bilevel.png", grey.convert("1")): True,
        save("opaque.png", opaque): True,
        save("image.bmp", rgb): False,
        save("image.gif", rgb.quantize(16), save_all=True, append_images=[rgb.quantize(4)]): False,
        save("image.webp", rgb, lossless=True): False,
    }


def test_stored_pixels_are_those_a_viewer_shows(save, run_prepare, tmp_path):
    kept = {}
    for path, keeps in kinds(save).items():
        kept[path] = keeps
        path.rename(path.with_stem(f"{path.stem}_{path.suffix[1:]}"))
    code, out, err = run_prepare(val_fraction=0, test_fraction=0)
    assert (code, err) == (0, "")
    assert f"{sum(kept.values())} stored unchanged, {len(kept) - sum(kept.values())} re-enc" in out
    data_dir = str(tmp_path / "datasets")
    dataset = prepared_dataset.open_dataset("made", data_dir)
    for example in record_reader.stored_examples(dataset.splits["train"]):
        parsed = image_decoding.parse_record(dataset.features, example["record"])
        name = parsed["name"].numpy().decode()
        stem, suffix = name.rsplit("_", 1)
        with Image.open(tmp_path / "source" / f"{name}.{suffix}") as image:
            shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        pixels = image_decoding.decode_image(parsed["pair"], channels=3)
        np.testing.assert_array_equal(pixels, shown, err_msg=name)


def test_python_call_does_what_the_binary_does(save, tmp_path):
    for k in range(10):
        save(f"{k}.png", noise(k))
    (tmp_path / "source" / "notes.txt").write_text("not an image")
    (tmp_path / "source" / ".hidden.png").write_text("not an image either")
    report = prepare.prepare(
        layout="side_by_side",
        source=tmp_path / "source",
        name="made",
        data_dir=tmp_path / "datasets",
    )
    assert report.examples == {"train": 8, "val": 1, "test": 1}
    assert report.ignored == (str(tmp_path / "source" / "notes.txt"),)
    assert (report.shortest_edge, report.longest_edge) == (32, 32)
    assert (report.kept, report.re_encoded) == (10, 0)
    assert report.size_bytes > 10 * noise(0).size * 0.9


def test_training_examples_are_stored_shuffled_and_others_by_name(save, run_prepare, tmp_path):
    for k in range(30):
        save(f"train/{k:02d}.png", noise(k, 12, 12))
        save(f"test/{k:02d}.png", noise(k, 12, 12))
    assert run_prepare()[0] == 0
    names = [f"{k:02d}" for k in range(30)]
    train, test = (list(stored(tmp_path / "datasets", split)) for split in ("train", "test"))
    assert test == names
    assert train != names and sorted(train) == names


def test_shards_are_small(save, run_prepare, tmp_path, monkeypatch):
    for k in range(12):
        save(f"{k}.png", noise(k))
    monkeypatch.setattr(image_set_builder, "SHARD_BYTES", 15_000)
    assert run_prepare(val_fraction=0, test_fraction=0)[0] == 0
    shards = list((tmp_path / "datasets").rglob("*.tfrecord-*"))
    assert len(shards) > 4
    assert all(shard.stat().st_size < 25_000 for shard in shards)
    assert len(stored(tmp_path / "datasets")) == 12


def test_an_existing_data_set_is_replaced_only_on_request(save, run_prepare, tmp_path):
    save("a.png", noise(0))
    fractions = {"val_fraction": 0, "test_fraction": 0}
    assert run_prepare(**fractions)[0] == 0
    save("b.png", noise(1))
    code, _, err = run_prepare(**fractions)
    assert code == 2 and "already exists; add --overwrite" in err
    assert list(stored(tmp_path / "datasets")) == ["a"]
    assert run_prepare(**fractions, overwrite=True)[0] == 0
    assert set(stored(tmp_path / "datasets")) == {"a", "b"}
    assert os.listdir(tmp_path / "datasets") == ["made"]


def test_a_folder_that_is_no_data_set_is_never_replaced(save, run_prepare, tmp_path):
    save("a.png", noise(0))
    (tmp_path / "datasets" / "made").mkdir(parents=True)
    (tmp_path / "datasets" / "made" / "thesis.txt").write_text("three years of work")
    code, _, err = run_prepare(overwrite=True, val_fraction=0, test_fraction=0)
    assert code == 2 and "not a prepared data set" in err
    assert (tmp_path / "datasets" / "made" / "thesis.txt").exists()


@pytest.mark.parametrize("error, expected_code", [(KeyboardInterrupt, 1), (OSError, 2)])
def test_interruption_leaves_nothing(save, run_prepare, tmp_path, monkeypatch, error, expected_code):
    for k in range(6):
        save(f"{k}.png", noise(k))
    encode, calls = image_encoding.encode, []

    def encode_some(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise error("no more")
        return encode(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(image_encoding, "encode", encode_some)
        code, out, err = run_prepare()
    assert (code, out, err.count("\n")) == (expected_code, "", 1)
    assert not (tmp_path / "datasets").exists()
    assert run_prepare()[0] == 0


def test_a_full_disk(save, run_prepare, tmp_path, monkeypatch):
    def write(self, *, examples_per_shard, directory):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(image_set_builder.ImageSetBuilder, "write", write)
    save("a.png", noise(0))
    code, _, err = run_prepare(val_fraction=0, test_fraction=0)
    assert (code, err.count("\n")) == (2, 1)
    assert "datasets: cannot be written to (No space left on device); free space" in err


def test_what_a_killed_run_left_is_removed(save, run_prepare, tmp_path):
    save("a.png", noise(0))
    leftover = tmp_path / "datasets" / ".incomplete_made_killed"
    running = tmp_path / "datasets" / ".incomplete_made_running"
    for path in (leftover, running):
        path.mkdir(parents=True)
    with tfds_writer._locked(running) as lock_taken:
        assert lock_taken
        assert run_prepare(val_fraction=0, test_fraction=0)[0] == 0
        assert sorted(os.listdir(tmp_path / "datasets")) == [running.name, "made"]
