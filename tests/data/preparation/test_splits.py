"""Which examples are for training, validation and test."""

import itertools
import pathlib

import pytest

from data.errors import DataError
from data.preparation.folder_reader import FolderReader
from data.preparation.splits import Division, find_examples


@pytest.fixture
def find(tmp_path):
    """Names of a source of the given files: find(layout, files, **Division) -> {split: names}, Source."""

    def find(files, layout="single", reader=None, **division):
        for name in files:
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"anything")
        source = find_examples(
            layout=layout,
            source=str(tmp_path / "source"),
            division=Division(**division),
            reader=reader or FolderReader(),
        )
        return {split: [e.name for e in examples] for split, examples in source.splits.items()}, source

    return find


@pytest.fixture
def lists(tmp_path):
    """Writes lists of names and gives their folder."""

    def write(**lists):
        folder = tmp_path / "lists"
        folder.mkdir()
        for split, text in lists.items():
            (folder / f"{split}.txt").write_text(text, encoding="utf-8")
        return str(folder)

    return write


def refused(match, find, *args, **kwargs):
    with pytest.raises(DataError, match=match) as raised:
        find(*args, **kwargs)
    assert "\n" not in str(raised.value)


def test_fractions_depend_on_names_alone(find, tmp_path):
    files = [f"{k:03d}.png" for k in range(100)]
    splits, _ = find(files, val_fraction=0.2, test_fraction=0.15)
    assert {split: len(names) for split, names in splits.items()} == {"train": 65, "val": 20, "test": 15}
    assert sorted(sum(splits.values(), [])) == [f"{k:03d}" for k in range(100)]
    assert splits["val"] == sorted(splits["val"]) and splits["train"] != sorted(splits["train"])
    (tmp_path / "source").rename(tmp_path / "moved")
    assert find([f"{k:03d}.jpg" for k in range(100)], val_fraction=0.2, test_fraction=0.15)[0] == splits


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_torn(find, seed):
    sizes = [(7 * k * (seed + 3)) % 23 + 1 for k in range(12)]
    files = [f"{seed}scene{k:02d}_{i:03d}.png" for k, size in enumerate(sizes) for i in range(size)]
    splits, _ = find(files, group=r"(scene\d+)_", val_fraction=0.2, test_fraction=0.1)
    groups = {split: {name.split("_")[0] for name in names} for split, names in splits.items()}
    for first, second in itertools.combinations(groups.values(), 2):
        assert not first & second
    assert sum(map(len, splits.values())) == sum(sizes)
    # No group left over would bring a split nearer to its share.
    left_over = {"test": groups["train"] | groups.get("val", set()), "val": groups["train"]}
    for split, fraction in (("val", 0.2), ("test", 0.1)):
        off = fraction * sum(sizes) - len(splits.get(split, ()))
        for group in left_over[split]:
            size = sizes[int(group[-2:])]
            assert abs(off - size) >= abs(off)


def test_groups_of_one_size_meet_the_fractions(find):
    files = [f"p{k}_{i}.png" for k in range(20) for i in range(3)]
    splits, _ = find(files, group=r"(p\d+)_", val_fraction=0.1, test_fraction=0.2)
    assert {split: len(names) for split, names in splits.items()} == {"train": 42, "val": 6, "test": 12}


def test_a_group_is_on_one_side_for_both_sides_of_unpaired_images(find):
    files = [f"{side}/p{k}_{i}.png" for side in "AB" for k in range(10) for i in range(2 + (side == "A"))]
    splits, _ = find(files, layout="unpaired", group=r"(p\d+)_", val_fraction=0.2, test_fraction=0.2)
    assert {split: len(names) for split, names in splits.items()} == {
        "trainA": 18, "trainB": 12, "valA": 6, "valB": 4, "testA": 6, "testB": 4
    }  # fmt: skip
    for split in ("train", "val", "test"):
        assert {n.split("_")[0] for n in splits[split + "A"]} == {
            n.split("_")[0] for n in splits[split + "B"]
        }


def test_a_name_without_a_group_is_refused(find):
    refused(
        r"'cover': does not match group = .*change the name",
        find,
        ["s1_1.png", "cover.png"],
        group=r"(s\d)_",
    )
    refused("'cover': does not match", find, [], group=r"(s\d)_|cover")


@pytest.mark.parametrize("group, match", [("(", "not a regular expression"), ("s1", "has no group")])
def test_expressions_that_cannot_be_used(find, group, match):
    refused(f"group = .*{match}", find, ["a.png"], group=group)


def test_one_group_is_all_for_training(find):
    splits, source = find(["s1_1.png", "s1_2.png"], group=r"(s\d)_")
    assert list(splits) == ["train"] and source.groups == 1


def test_lists(find, lists):
    folder = lists(train="b\r\na.png\n\n", test="ünï 1\n")
    splits, source = find(["a.png", "b.png", "ünï 1.png", "d.png"], split_lists=folder)
    assert {split: sorted(names) for split, names in splits.items()} == {
        "train": ["a", "b"],
        "test": ["ünï 1"],
    }
    assert len(source.unlisted) == 1 and not source.skipped


def test_lists_of_unpaired_images_are_for_both_sides(find, lists):
    splits, _ = find(
        ["A/1.png", "A/2.png", "B/1.png"], layout="unpaired", split_lists=lists(train="1", test="2")
    )
    assert splits == {"trainA": ["1"], "trainB": ["1"], "testA": ["2"]}


def test_a_listed_name_that_is_not_there_is_left_out(find, lists):
    _, source = find(["a.png"], split_lists=lists(train="a\nb.png\n"))
    assert [r.name for r in source.skipped] == ["b"]
    assert "train.txt: names 'b', which is not in" in source.skipped[0].reason


def test_a_listed_name_that_cannot_be_used_is_one_refusal(find, lists):
    _, source = find(["a.png", "b.png", "b.jpg"], split_lists=lists(train="a\nb\n"))
    assert len(source.skipped) == 1 and "have the same name" in source.skipped[0].reason


def test_a_name_in_two_lists(find, lists):
    folder = lists(train="a\nb", test="b.png")
    refused(
        "test.txt: names 'b', which is already in train.txt", find, ["a.png", "b.png"], split_lists=folder
    )


def test_no_list(find, lists):
    refused("train.txt: cannot be read .No such file", find, ["a.png"], split_lists=lists(test="a"))


def test_two_ways_of_dividing(find, lists):
    refused("two ways of dividing", find, ["a.png"], split_lists=lists(train="a"), group="(a)")


def test_folders_are_not_divided_again(find, lists):
    refused("is already divided by its folders train", find, ["train/a.png"], group="(a)")
    refused("is already divided by its folders train", find, [], split_lists=lists(train="a"))


def test_folders(find):
    files = ["train/A/1.png", "train/B/1.png", "val/A/2.png", "val/B/2.png", "val/B/3.png"]
    assert find(files, layout="unpaired")[0] == {
        "trainA": ["1"],
        "trainB": ["1"],
        "valA": ["2"],
        "valB": ["2", "3"],
    }
    splits, source = find([], layout="paired")
    assert splits == {"train": ["1"], "val": ["2"]} and len(source.skipped) == 1


def test_folders_as_the_reference_names_them(find):
    files = [f"{split}{side}/{k}.png" for split in ("train", "test") for side in "AB" for k in range(2)]
    splits, source = find([*files, "readme.md"], layout="unpaired")
    assert {split: sorted(names) for split, names in splits.items()} == {
        split: ["0", "1"] for split in ("trainA", "trainB", "testA", "testB")
    }
    assert [pathlib.Path(path).name for path in source.ignored] == ["readme.md"]


@pytest.mark.parametrize(
    "files, match",
    [
        (["trainA/1.png"], "has trainA but no folder 'trainB'"),
        (["trainA/1.png", "trainB/1.png", "testB/1.png"], "no folder 'testA'"),
        (["testA/1.png", "testB/1.png"], "no folder 'trainA'"),
        (["trainA/1.png", "trainB/1.png", "other/1.png"], "source/other: is beside the folders"),
        (["train/A/1.png", "train/B/1.png", "x.png"], "source/x.png: is beside the folders"),
    ],
)
def test_folders_that_are_missing_or_too_many(find, files, match):
    refused(match, find, files, layout="unpaired")


def test_a_side_with_nothing_to_train_on(find):
    settings = {"val_fraction": 0, "test_fraction": 0.6}
    files = ["A/1.png", "A/2.png", "A/3.png", "B/1.png"]
    refused("no training examples in 'trainB'", find, files, layout="unpaired", **settings)


def test_patterns_are_for_paired_images(find):
    reader = FolderReader(match_a="(.*)a", match_b="(.*)b")
    refused("are for layout paired", find, ["1a.png", "1b.png"], reader=reader)
