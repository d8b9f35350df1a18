"""Labelled images on their way from class folders or a CSV file into batches."""

import re

import numpy as np
import pytest

from data.labelled import LabelledImages
from data.preparation.examples import Example
from data.preparation.folder_reader import FolderReader
from data.preparation.splits import Division, find_examples
from data.tfrecords.prepared_dataset import open_dataset

SIZES = {"bird": 5, "cat": 20, "dog": 11}


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)


@pytest.fixture
def class_folders(tmp_path, save):
    """Function of {class: images} that saves them, every second one in a folder of its class's folder."""

    def make(sizes, folder=""):
        for number, (name, size) in enumerate(sizes.items()):
            for k in range(size):
                save(f"{folder}{name}/{'indoors/' if k % 2 else ''}{k:02}.png", picture(100 * number + k))
        return tmp_path / "source"

    return make


@pytest.fixture
def table(tmp_path, save):
    """Function of the text of a CSV file, and a folder of pictures a/0, ..., a/5, 6, ..., 11."""
    for k in range(12):
        save(f"{'a/' if k < 6 else ''}{k}.png", picture(k))

    def write(*lines):
        path = tmp_path / "targets.csv"
        path.write_text("\n".join(lines))
        return path

    return write


def rows(*values):
    """Lines of the table's pictures, each with a value of its own: "a/0.png,VALUE"."""
    return [f"{'a/' if k < 6 else ''}{k}.png,{value}" for k, value in enumerate(values)]


def read(tmp_path, split, **settings):
    """The data set, and {name: target} of a split."""
    settings = {"load_size": 0, "crop_size": 8} | settings
    data = LabelledImages(dataset="made", data_dir=str(tmp_path / "datasets"), **settings)
    batches = [batch for batch in data.evaluation(split, batch=50)]
    return data, {
        name.decode(): tuple(target)
        for batch in batches
        for name, target in zip(batch["name"].numpy(), batch["target"].numpy(), strict=True)
    }


def test_class_folders_are_divided_class_by_class(tmp_path, class_folders, run_prepare):
    class_folders(SIZES)
    code, told, errors = run_prepare("labelled", val_fraction=0.2, test_fraction=0.1)
    assert (code, errors) == (0, "")
    found = {split: read(tmp_path, split)[1] for split in ("train", "val", "test")}
    names = [name for targets in found.values() for name in targets]
    assert len(names) == len(set(names)) == 36 and "cat/indoors/01" in names
    order = sorted(SIZES)
    for targets in found.values():
        for name, target in targets.items():
            assert target == tuple(float(other == name.split("/")[0]) for other in order)
    counts = {
        split: [sum(name.startswith(c) for name in targets) for c in order]
        for split, targets in found.items()
    }
    assert counts == {"train": [3, 14, 8], "val": [1, 4, 2], "test": [1, 2, 1]}
    for number, name in enumerate(order):
        line = ", ".join(f"{split} {counts[split][number]}" for split in counts)
        assert f"target    {name}: {line}\n" in told
    assert "--gin_file=gin/classification.gin" in told
    data, _ = read(tmp_path, "val")
    assert (data.target_kind, data.target_names) == ("classes", tuple(order))


@pytest.mark.parametrize("sizes", [[1, 1, 2, 3], [2] * 40, [7, 100, 1, 15, 3]])
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.3, 0.25), (0.0, 0.5)])
def test_a_class_misses_its_fraction_by_less_than_one(tmp_path, sizes, fractions, monkeypatch):
    examples = [Example(f"{c:02}/{k}", ()) for c, size in enumerate(sizes) for k in range(size)]
    monkeypatch.setattr(FolderReader, "tree", lambda self, folder: examples)
    (tmp_path / "00").mkdir()
    found = find_examples(
        layout="labelled",
        source=str(tmp_path),
        division=Division(val_fraction=fractions[0], test_fraction=fractions[1]),
        reader=FolderReader(),
        classes=lambda given: {example.name: example.name[:2] for example in given},
    ).splits
    counts = {
        split: np.bincount([int(e.name[:2]) for e in found.get(split, [])], minlength=len(sizes))
        for split in ("train", "val", "test")
    }
    np.testing.assert_array_equal(sum(counts.values()), sizes)
    assert counts["train"].min() >= 1
    for split, fraction in zip(("val", "test"), fractions, strict=True):
        assert (np.abs(counts[split] - fraction * np.array(sizes)) < 1 + 1e-9).all()
        if min(sizes) * (1 - sum(fractions)) >= 2:  # nothing had to stay for training
            assert abs(counts[split].sum() - fraction * sum(sizes)) <= 0.5


def test_folders_of_splits_keep_them(tmp_path, class_folders, run_prepare):
    class_folders({"cat": 4, "dog": 3}, "train/")
    class_folders({"dog": 2}, "val/")
    code, told, errors = run_prepare("labelled")
    assert (code, errors) == (0, "")
    assert "target    cat: train 4, val 0\n" in told and "target    dog: train 3, val 2\n" in told
    assert read(tmp_path, "val")[1] == {"dog/00": (0, 1), "dog/indoors/01": (0, 1)}


def test_numbers_of_a_csv_file_and_their_statistics(tmp_path, table, run_prepare):
    values = np.random.default_rng(0).normal([3, -500], [0.5, 100], (12, 2)).round(3)
    lines = rows(*[f"{a},{b}" for a, b in values])
    path = table("file,width in m,depth", *reversed(lines))
    code, told, errors = run_prepare("labelled", targets=path, val_fraction=0.25, test_fraction=0)
    assert (code, errors) == (0, "")
    data, train = read(tmp_path, "train")
    _, val = read(tmp_path, "val")
    assert (data.target_kind, data.target_names) == ("numbers", ("width in m", "depth"))
    assert (len(train), len(val)) == (9, 3)
    expected = {f"{'a/' if k < 6 else ''}{k}": tuple(np.float32(row)) for k, row in enumerate(values)}
    assert train | val == expected
    stored = np.array(list(train.values()), np.float64)
    mean, deviation = data.target_statistics
    np.testing.assert_allclose(mean, stored.sum(axis=0) / 9, rtol=1e-12)
    np.testing.assert_allclose(deviation**2, ((stored - mean) ** 2).sum(axis=0) / 9, rtol=1e-12)
    low, high = stored[:, 1].min(), stored[:, 1].max()
    line = f"train mean {mean[1]:g}, standard deviation {deviation[1]:g}, {low:g} to {high:g}; val mean "
    assert f"target    depth: {line}" in told and "--gin_file=gin/regression.gin" in told


def test_classes_of_a_csv_file(tmp_path, table, run_prepare):
    path = table(*rows(*["night", "day"] * 6))
    code, _, errors = run_prepare("labelled", targets=path)
    assert (code, errors) == (0, "")
    data, train = read(tmp_path, "train")
    assert data.target_names == ("day", "night")
    for name, target in train.items():
        assert target == ((0, 1) if int(name.rpartition("/")[2]) % 2 == 0 else (1, 0))


def test_whole_numbers_are_classes_or_numbers_as_the_user_says(tmp_path, table, run_prepare):
    path = table(*rows(*[10, 9, 2] * 4))
    code, _, errors = run_prepare("labelled", targets=path)
    assert code == 2 and "may be classes or numbers; say which with --target_kind=classes" in errors
    assert run_prepare("labelled", targets=path, target_kind="classes")[0] == 0
    data, train = read(tmp_path, "train")
    assert data.target_names == ("2", "9", "10") and train["a/0"] == (0, 0, 1)
    assert run_prepare("labelled", targets=path, target_kind="numbers", name="other")[0] == 0
    numbers = LabelledImages(dataset="other", data_dir=str(tmp_path / "datasets"), load_size=0, crop_size=8)
    assert (numbers.target_kind, numbers.target_names) == ("numbers", ("number_1",))


def test_names_with_splits_and_side_information(tmp_path, class_folders, save, run_prepare):
    class_folders({"cat": 3, "dog": 3}, "train/")
    class_folders({"cat": 2, "dog": 1}, "val/")
    names = [
        f"{split}/{name}/{'indoors/' if k % 2 else ''}{k:02}"
        for split, sizes in (("train", {"cat": 3, "dog": 3}), ("val", {"cat": 2, "dog": 1}))
        for name, size in sizes.items()
        for k in range(size)
    ]
    for name in names:
        save(f"../maps/{name}.png", picture(1))
    (tmp_path / "vectors.csv").write_text("\n".join(f"{name}.png,{k}" for k, name in enumerate(names)))
    (tmp_path / "n.csv").write_text("\n".join(f"{name}.png,{k / 4}" for k, name in enumerate(names)))
    given = {"side_vector": tmp_path / "vectors.csv", "side_map": tmp_path / "maps"}
    for more in ({}, {"targets": tmp_path / "n.csv", "overwrite": True}):
        code, _, errors = run_prepare("labelled", **given, **more)
        assert (code, errors) == (0, "")
        data, targets = read(tmp_path, "val")
        assert list(data.example_spec) == ["input", "target", "side_map", "side_vector"]
        [batch] = data.evaluation("val", batch=9)
        keys = [f"val/{name.decode()}" for name in batch["name"].numpy()]
        np.testing.assert_array_equal(batch["side_vector"][:, 0], [names.index(key) for key in keys])
    assert targets["dog/00"] == (names.index("val/dog/00") / 4,)


def fails(result):
    """The one line of a refusal."""
    code, out, errors = result
    assert (code, out) == (2, "") and errors.count("\n") == 1
    return errors


def test_folders_that_are_no_classes(tmp_path, class_folders, save, run_prepare):
    source = class_folders({"cat": 3})
    assert f"{source}: has only one class, 'cat'" in fails(run_prepare("labelled"))
    (source / "empty").mkdir()
    assert f"{source}/empty: holds no image that can be used; add some" in fails(run_prepare("labelled"))
    (source / "empty" / "notes.txt").write_text("no image")
    assert "holds no image that can be used" in fails(run_prepare("labelled"))
    (source / "empty").rename(source / "dog")
    save("dog/0.png", picture(50))
    errors = fails(run_prepare("labelled"))
    assert "has one image only of 1 class (dog), and training and evaluation need one each" in errors
    assert run_prepare("labelled", val_fraction=0, test_fraction=0, name="kept")[0] == 0
    save("dog/1.png", picture(51))
    save("Cat/0.png", picture(52))
    save("Cat/1.png", picture(53))
    assert "classes 'Cat' and 'cat' differ in upper and lower case or spaces" in fails(
        run_prepare("labelled")
    )
    (source / "Cat").rename(source / "cat" / "more")
    save("beside.png", picture(54))
    errors = fails(run_prepare("labelled"))
    assert f"{source}/beside.png: is in no folder of a class; move it into one, or" in errors
    (source / "beside.png").unlink()
    (source / "dog" / "up").symlink_to(source, target_is_directory=True)
    assert f"{source}/dog/up: links to a folder above it; remove the link" in fails(run_prepare("labelled"))


def test_splits_of_other_names_are_no_classes(class_folders, run_prepare):
    for split in ("Train", "validation"):
        class_folders({"cat": 2, "dog": 2}, f"{split}/")
    errors = fails(run_prepare("labelled"))
    assert "its folders Train, validation look like splits, but only train, val and test" in errors


def test_a_class_without_training_images(tmp_path, class_folders, run_prepare):
    class_folders({"cat": 3, "dog": 2}, "train/")
    source = class_folders({"fox": 2}, "val/")
    errors = fails(run_prepare("labelled"))
    assert f"{source}: has no training examples that can be used of 1 class (fox)" in errors
    (source / "val" / "fox").rename(source / "val" / "cat")
    for path in (source / "train" / "dog").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    errors = fails(run_prepare("labelled"))
    assert "has no training examples that can be used of 1 class (dog)" in errors
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    "lines, words",
    [
        (rows(*range(11)), "has no row for 1 example (11); add"),
        ([*rows(*np.arange(12) / 8), "b/0.png,2"], "has rows for 1 name (b/0.png) that no example has"),
        ([*rows(*np.arange(12) / 8), "a/0.png,2"], "has several rows for 1 name (a/0.png); keep one"),
        ([*rows(*np.arange(12) / 8), "a/0,2"], "a/0.png and a/0 name the same example; keep one"),
        (rows(*np.arange(11) / 8, "nan"), "no row of finite float32 numbers for 1 name (11.png ('nan'))"),
        (rows(*np.arange(11) / 8, "inf"), "11.png ('inf')"),
        (rows(*np.arange(11) / 8, 1e39), "11.png ('1e+39')"),
        (rows(*np.arange(11) / 8, "?"), "correct them, or give --target_kind=classes if"),
        (
            rows(*np.arange(11) / 8, ""),
            "has 2 cells, but there are more, fewer or empty ones in 1 name (11.png)",
        ),
        (rows(*np.arange(11) / 8, "1,2"), "more, fewer or empty ones in 1 name (11.png)"),
        (["file,width,depth", *rows(*np.arange(12) / 8)], "ones in its header (width,depth)"),
        (["file,w,w", *rows(*["1,2.5"] * 12)], "its header (w,w) names two columns alike"),
        (["file,width", *rows(*[2.5] * 12)], "'width' is 2.5 for all training examples"),
        (rows(*["day"] * 12), "has only one class, 'day'"),
        (rows(*["day", "Day"] * 6), "classes 'Day' and 'day' differ in upper and lower case"),
        (rows("noon", *["day"] * 11), "has one image only of 1 class (noon)"),
        ([k.split(",")[0] for k in rows(*range(12))], "holds only names; write rows of name,class or"),
        ([""], "holds no rows; write one per example"),
    ],
)
def test_tables_that_cannot_be_used(table, run_prepare, lines, words):
    given = {"target_kind": "numbers"} if words.startswith("has no row") else {}
    errors = fails(run_prepare("labelled", targets=table(*lines), **given))
    assert words in errors and not re.search(r"\.$", errors)


def test_arguments_that_do_not_fit(tmp_path, table, run_prepare):
    path = table(*rows(*["1,2"] * 12))
    assert "are for layout labelled" in fails(run_prepare("single", targets=path))
    assert "without targets" in fails(run_prepare("labelled", target_kind="numbers"))
    errors = fails(run_prepare("labelled", targets=path, target_kind="classes"))
    assert "has 2 columns, and a class is one" in errors
    assert "cannot be read" in fails(run_prepare("labelled", targets=tmp_path / "none.csv"))
    (tmp_path / "nothing").mkdir()
    assert "holds no images" in fails(run_prepare("labelled", source=tmp_path / "nothing"))


def test_a_skipped_image_may_have_a_row(tmp_path, table, run_prepare):
    lines = rows(*np.arange(12) / 8)
    (tmp_path / "source" / "7.png").write_bytes(b"no picture")
    code, told, errors = run_prepare("labelled", targets=table(*lines))
    assert (code, errors) == (0, "") and "skipped   1 example" in told
    examples = open_dataset("made", tmp_path / "datasets").splits
    assert sum(part.examples for part in examples.values()) == 11
