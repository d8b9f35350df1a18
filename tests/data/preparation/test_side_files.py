"""Side information on its way from a CSV file and a folder of maps into batches."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from data import imaging, prepare
from data.augmentation.colour import Invert
from data.augmentation.geometry import Crop, Flip, RandomResizedCrop, Rotation
from data.errors import DataError
from data.pairs import PairedImages
from data.preparation.side_files import SideFiles
from data.single import SingleImages
from data.supply import Supply
from data.tfrecords.prepared_dataset import open_dataset

NAMES = [f"p{k}" for k in range(12)]


def noise(seed, height=12, width=16, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture
def source(tmp_path, save):
    """A folder of single pictures, each with a map that is the picture itself, and CSV files of them."""
    for number, name in enumerate(NAMES):
        save(f"{name}.png", noise(number))
        save(f"../maps/{name}.png", noise(number))
    rows = [f"{name}, {number / 8}, {-number}" for number, name in enumerate(NAMES)]
    (tmp_path / "vectors.csv").write_text("\n".join(["\ufeffName,first,second", *reversed(rows), ""]))
    rows = [f"{name}.png,{'night' if number % 3 else 'day'}" for number, name in enumerate(NAMES)]
    (tmp_path / "classes.csv").write_text("\n".join(rows))
    return tmp_path


def batches_of(folder, kind=SingleImages, examples=24, **settings):
    settings = {"load_size": 0, "crop_size": 8, "seed": 3} | settings
    data = kind(dataset="made", data_dir=str(folder / "datasets"), **settings)
    batches = data.batches(position_examples=0, global_batch=examples)
    return data, {name: x.numpy() for name, x in next(iter(batches)).items()}


def names_of(folder, data, ids):
    """The names of training examples by their ids."""
    part = open_dataset("made", folder / "datasets").splits["train"]
    records = [r for shard in part.shards for r in tf.data.TFRecordDataset(shard.path)]
    features = open_dataset("made", folder / "datasets").features
    return [features.deserialize_example(records[k])["name"].numpy().decode() for k in ids]


def test_numbers_come_with_their_examples(source, run_prepare):
    code, told, errors = run_prepare("single", side_vector=source / "vectors.csv", val_fraction=0.2)
    assert code == 0, errors
    assert "side_vector: 2 numbers" in told and 'SideInformation.vector = "film"' in told
    data, batch = batches_of(source, supply=Supply(cache="memory", on_bad_record="skip"))
    assert data.example_spec["side_vector"] == tf.TensorSpec([2], tf.float32, name="side_vector")
    assert batch["side_vector"].dtype == np.float32 and data.side_classes == ()
    numbers = [NAMES.index(name) for name in names_of(source, data, batch["id"])]
    assert len(set(numbers)) > 5
    np.testing.assert_array_equal(batch["side_vector"], [(k / 8, -k) for k in numbers])
    [evaluated] = data.evaluation("val", batch=9)
    numbers = [NAMES.index(name.decode()) for name in evaluated["name"].numpy()]
    np.testing.assert_array_equal(evaluated["side_vector"], [(k / 8, -k) for k in numbers])
    rows = data.batches(position_examples=5, global_batch=4, rows=[1, 3])
    np.testing.assert_array_equal(next(iter(rows))["side_vector"], batch["side_vector"][[6, 8]])


def test_classes_are_one_hot_in_the_order_of_their_names(source, run_prepare):
    code, told, errors = run_prepare("single", side_classes=source / "classes.csv")
    assert code == 0, errors
    assert "side_vector: 2 numbers; one-hot: day, night" in told
    data, batch = batches_of(source)
    assert data.side_classes == ("day", "night")
    numbers = [NAMES.index(name) for name in names_of(source, data, batch["id"])]
    np.testing.assert_array_equal(batch["side_vector"], [(k % 3 == 0, k % 3 != 0) for k in numbers])


def test_maps_move_as_their_pictures_do_and_keep_their_colours(source, run_prepare):
    code, told, errors = run_prepare("single", side_map=source / "maps")
    assert code == 0, errors
    assert "side_map: uint8, 3 channels" in told and 'map = "concatenate"' in told
    assert "gin/single.gin" in told and "duplicate" not in told
    moving = (Crop(pad=2), Flip(vertical=True), Rotation(degrees=(-40, 40)), RandomResizedCrop())
    for settings in (
        {"load_size": (20, 24), "resize": "resize_with_pad", "colour_space": "lab"},
        {"augmentations": (*moving[:2], Invert(), *moving[2:])},
    ):
        data, batch = batches_of(source, **settings)
        assert list(data.example_spec) == ["input", "target", "side_map"]
        assert batch["side_map"].shape == (24, 8, 8, 3)
        expected = -batch["side_map"] if "augmentations" in settings else batch["side_map"]
        expected = imaging.rgb_to_space(expected, settings.get("colour_space", "rgb"))
        np.testing.assert_allclose(batch["input"], expected, rtol=0, atol=1e-5)
        assert np.ptp(batch["side_map"]) > 1
        # The first and the second epoch are cut and mirrored differently.
        order = np.argsort(batch["id"][:10]), 10 + np.argsort(batch["id"][10:20])
        first, second = (batch["side_map"][rows] for rows in order)
        assert np.mean((first != second).any(axis=(1, 2, 3))) > 0.5


def test_maps_of_halves_of_other_channels_and_depth(tmp_path, save, run_prepare):
    for number, name in enumerate(NAMES):
        save(f"{name}.png", noise(number, 12, 32))
        save(f"../maps/{name}.png", noise(number, 12, 16, 1)[..., 0].astype(np.uint16) * 257)
    (tmp_path / "vectors.csv").write_text("\n".join(f"{name},{k}" for k, name in enumerate(NAMES)))
    code, told, errors = run_prepare(side_map=tmp_path / "maps", side_vector=tmp_path / "vectors.csv")
    assert code == 0, errors
    data, batch = batches_of(tmp_path, PairedImages, crop_size=(12, 16), flip=False)
    for k, name in enumerate(names_of(tmp_path, data, batch["id"])):
        number = NAMES.index(name)
        pair = imaging.range_to_signed(noise(number, 12, 32), low=0, high=255)
        np.testing.assert_allclose(batch["input"][k], pair[:, :16], atol=1e-6)
        np.testing.assert_allclose(batch["target"][k], pair[:, 16:], atol=1e-6)
        expected = noise(number, 12, 16, 1) / 127.5 - 1
        np.testing.assert_allclose(batch["side_map"][k], expected, atol=1e-6)
        assert batch["side_vector"][k] == [number]
    lab = PairedImages(dataset="made", data_dir=str(tmp_path / "datasets"), colour_space="lab")
    assert lab.example_spec["side_map"].shape[-1] == 1  # it need not be coloured


def test_without_side_information_nothing_changes(source, run_prepare):
    code, told, _ = run_prepare("single")
    assert code == 0 and "side_vector" not in told and "side_map" not in told
    data, batch = batches_of(source)
    assert list(data.example_spec) == ["input", "target"] and batch.keys() == {"input", "target", "id"}
    metadata = json.loads(next(pathlib.Path(source / "datasets").rglob("metadata.json")).read_text())
    assert metadata.keys() == {"layout", "alpha", "smallest_height", "smallest_width", "digests"}


def test_pictures_of_one_name_in_several_splits(tmp_path, save, run_prepare):
    for split in ("train", "val"):
        for name in "ab":
            save(f"{split}/{name}.png", noise(ord(name) + len(split)))
            save(f"../maps/{split}/{name}.png", noise(ord(name) + len(split)))
            save(f"../flat/{name}.png", noise(1))
    path = tmp_path / "vectors.csv"
    path.write_text("a,1\nb,2\n")
    for flags in ({"side_vector": path}, {"side_map": tmp_path / "flat"}):
        code, _, errors = run_prepare("single", **flags)
        assert code == 2 and "is the name of examples in train and val" in errors
    path.write_text("train/a,1\ntrain/b,2\nval/a,3\nval/b,4\n")
    assert run_prepare("single", side_vector=path, side_map=tmp_path / "maps")[0] == 0
    data, batch = batches_of(tmp_path, examples=2)
    np.testing.assert_array_equal(sorted(batch["side_vector"][:, 0]), [1, 2])
    [val] = data.evaluation("val", batch=2)
    np.testing.assert_array_equal(val["side_vector"][:, 0], [3, 4])
    np.testing.assert_array_equal(val["side_map"], val["input"])


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda rows: rows[:-2], ["no row for 2 examples (", "p10", "p11", "add what is missing"]),
        (lambda rows: [*rows, "x1,1,2", "x2,1,2"], ["rows for 2 names (x1, x2) that no example has"]),
        (lambda rows: [*rows, rows[3]], ["several rows for 1 name (p3)"]),
        (lambda rows: ["p0,nan,1", *rows[1:]], ["no row of finite float32 numbers for 1 name (p0 ('nan'))"]),
        (lambda rows: ["p0,1e39,1", *rows[1:]], ["p0 ('1e39')"]),
        (lambda rows: [*rows[:4], "p4,day,1", *rows[5:]], ["p4 ('day')"]),
        (lambda rows: [*rows[:4], "p4,1", *rows[5:]], ["p4 (1 numbers, where the first row has 2)"]),
        (lambda rows: ["image,a,b", *rows], ["image ('a')"]),
        (lambda rows: NAMES, ["holds only names"]),
        (lambda rows: ["name,a"], ["holds no rows"]),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(source, run_prepare, change, expected):
    path = source / "vectors.csv"
    path.write_text("\n".join(change([f"{name},{k},1" for k, name in enumerate(NAMES)])))
    code, told, errors = run_prepare("single", side_vector=path)
    assert code == 2 and not told and errors.count("\n") == 1
    for text in [str(path), *expected]:
        assert text in errors
    assert not (source / "datasets" / "made").exists()


def test_flags_that_do_not_fit_are_refused(source, run_prepare, save):
    (source / "classes.csv").write_text("\n".join(f"{name}," for name in NAMES))
    for expected, flags in {
        "cannot be read (No such file": {"side_vector": source / "none.csv"},
        "cannot be read (not UTF-8)": {"side_vector": source / "source" / "p0.png"},
        "both are given": {"side_vector": source / "vectors.csv", "side_classes": source / "classes.csv"},
        "no row name,class for 12 names (p0, p1, ": {"side_classes": source / "classes.csv"},
        "no such folder": {"side_map": source / "none"},
        "takes name, data_dir and source only": {"side_map": source / "maps", "layout": "tfds"},
    }.items():
        code, _, errors = run_prepare(**{"layout": "single"} | flags)
        assert code == 2 and expected in errors and errors.count("\n") == 1
    save("../two/A/x.png", noise(1))
    save("../two/B/y.png", noise(2))
    code, _, errors = run_prepare("unpaired", source=source / "two", side_vector=source / "vectors.csv")
    assert code == 2 and "layout unpaired takes none" in errors


def test_examples_without_a_usable_map_are_left_out_and_named(source, run_prepare, save):
    (source / "maps" / "p1.png").unlink()
    (source / "maps" / "p2.png").write_bytes(b"\x89PNG damaged")
    save("../maps/p3.png", noise(3, 12, 18))
    save("../maps/p4.jpg", noise(3))
    save("../maps/more.png", noise(3))
    (source / "source" / "p5.png").write_bytes(b"damaged")  # its map is not one too many
    code, told, errors = run_prepare("single", side_map=source / "maps")
    assert code == 0 and "skipped   7 examples" in told
    report = prepare.prepare(
        layout="single", source=source / "source", name="again", data_dir=source / "datasets",
        side_map=str(source / "maps"),
    )  # fmt: skip
    reasons = "\n".join(report.skipped)
    for text in (
        "p1.png: has no map named 'p1'",
        "maps/p2.png",
        "maps/p3.png: is a map of 18x12 for images of 16x12",
        "p4.png have the same name",
        "maps/more.png: is the map of no example",
        "source/p5.png",
    ):
        assert text in reasons
    assert sum(report.examples.values()) == 7
    code, _, errors = run_prepare("single", side_map=source / "maps", name="third", strict=True)
    assert code == 2 and "strict: nothing was written" in errors


def test_float_maps_have_a_range_of_their_own(tmp_path, save, run_prepare):
    import tifffile

    (tmp_path / "maps").mkdir()
    values = {}
    for number, name in enumerate(NAMES):
        save(f"{name}.png", noise(number, channels=1)[..., 0].astype(np.uint16))
        values[name] = np.random.default_rng(number).uniform(-5, 3, (12, 16)).astype(np.float32)
        tifffile.imwrite(tmp_path / "maps" / f"{name}.tif", values[name])
    code, _, errors = run_prepare("single", side_map=tmp_path / "maps", value_range="0,255")
    assert code == 0, errors
    data, batch = batches_of(tmp_path, crop_size=(12, 16), flip=False)
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    for k, name in enumerate(names_of(tmp_path, data, batch["id"])):
        expected = 2 * (values[name] - low) / (high - low) - 1
        np.testing.assert_allclose(batch["side_map"][k, ..., 0], expected, atol=1e-5)
        expected = noise(NAMES.index(name), channels=1) / 127.5 - 1
        np.testing.assert_allclose(batch["input"][k], expected, atol=1e-6)


def test_no_files_are_no_side_information():
    with pytest.raises(DataError, match="both are given"):
        SideFiles(vector="a.csv", classes="b.csv")


def test_home_directory_in_paths(source, run_prepare, monkeypatch):
    """A shell does not replace the tilde of --side_vector=~/vectors.csv."""
    monkeypatch.setenv("HOME", str(source))
    code, told, errors = run_prepare("single", side_vector="~/vectors.csv", val_fraction=0.2)
    assert code == 0, errors
    assert "side_vector: 2 numbers" in told
