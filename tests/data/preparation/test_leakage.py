"""The same picture in two splits: found by its pixels, reported, and refused with --strict."""

import os

import numpy as np
import pytest
from PIL import Image

from data.preparation.leakage import Digests, Duplicate
from data.prepare import prepare


def noise(seed, channels=3, width=16):
    return np.random.default_rng(seed).integers(0, 256, (16, width, channels), np.uint8)


def pair(a, b):
    return np.concatenate([noise(a), noise(b)], axis=1)


@pytest.fixture
def prepared(save, tmp_path, run_prepare):
    """Prepares pictures, and asserts that --strict refuses them if there are duplicates."""

    def run(layout, pictures):
        for path, pixels in pictures.items():
            save(path, pixels)
        report = prepare(
            layout=layout, source=tmp_path / "source", name="once", data_dir=tmp_path / "datasets"
        )
        code, out, err = run_prepare(layout, strict=True, name="strict")
        if report.duplicates:
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert report.duplicates[0] in err and "strict allows no image in two splits" in err
            assert "strict" not in os.listdir(tmp_path / "datasets")
        else:
            assert (code, err) == (0, "")
        return report.duplicates

    return run


def test_digests_against_a_search_of_all_pairs():
    rng = np.random.default_rng(0)
    digests, entries = Digests(), []
    for split, count in (("train", 200), ("val", 50), ("test", 60)):
        for example in range(count):
            for role in "AB":
                value = int(rng.integers(400))
                entries.append((role, split, example, value))
                digests.add(split, role, example, value.to_bytes(2, "big") + bytes(14))
    expected, order = set(), ["train", "val", "test"]
    for role, split, example, value in entries:
        earlier = [
            other for other in entries
            if other[0] == role and other[3] == value and order.index(other[1]) < order.index(split)
        ]  # fmt: skip
        if earlier:
            first = min(order.index(other[1]) for other in earlier)
            expected.add((role, order[first], split, example))
    found = digests.duplicates()
    assert {(d.role, d.first_split, d.second_split, d.second_example) for d in found} == expected
    assert len(found) == len(expected) > 30
    values = {(role, split, example): value for role, split, example, value in entries}
    for d in found:
        first, second = (d.role, d.first_split, d.first_example), (d.role, d.second_split, d.second_example)
        assert values[first] == values[second]


def test_digests_that_end_in_zeros_are_told_apart():
    digests = Digests()
    digests.add("train", "A", 0, bytes([7]) + bytes(15))
    digests.add("test", "A", 0, bytes([7, 1]) + bytes(14))
    digests.add("test", "A", 1, bytes([7]) + bytes(15))
    assert digests.duplicates() == [Duplicate("A", "train", 0, "test", 1)]
    with pytest.raises(ValueError, match="is 4 bytes"):
        digests.add("test", "A", 2, b"1234")


def test_halves_are_compared_each_on_its_own(prepared):
    found = prepared(
        "side_by_side",
        {
            "train/1.png": pair(0, 1),
            "train/2.png": pair(2, 3),
            "val/3.png": pair(4, 1),  # its B is that of 1
            "test/4.png": pair(2, 5),  # its A is that of 2
            "test/5.png": pair(3, 0),  # A and B the other way round: not the same
        },
    )
    assert found == (
        "A of test/4 is the same image as A of train/2",
        "B of val/3 is the same image as B of train/1",
    )


def test_sides_of_a_pair_are_compared_each_on_its_own(prepared):
    pictures = {"train/A/1.png": noise(0), "train/B/1.png": noise(1)}
    pictures |= {"test/A/2.png": noise(1), "test/B/2.bmp": noise(1)}
    assert prepared("paired", pictures) == ("B of test/2 is the same image as B of train/1",)


def test_unpaired_sides(prepared):
    pictures = {"trainA/1.png": noise(0), "trainB/1.png": noise(1), "trainB/2.png": noise(2)}
    pictures |= {"testA/1.png": noise(1), "testB/9.png": noise(2)}
    assert prepared("unpaired", pictures) == ("testB/9 is the same image as trainB/2",)


def test_it_is_the_pixels_that_count(prepared):
    grey = noise(0, 1)
    pictures = {
        "train/a.png": grey,
        "train/b.png": noise(3),
        "val/c.bmp": np.repeat(grey, 3, axis=-1),
        "val/d.png": np.rot90(noise(3)),
        "test/e.png": Image.fromarray(noise(3)).quantize(4),
    }
    assert prepared("single", pictures) == ("val/c is the same image as train/a",)


def test_copies_inside_one_split_are_no_leak(prepared):
    assert prepared("single", {"train/a.png": noise(0), "train/b.png": noise(0), "val/c.png": noise(1)}) == ()


def test_a_report_names_them(save, run_prepare):
    for split in ("train", "val"):
        for k in range(7):
            save(f"{split}/{split}{k}.png", noise(k))
    code, out, err = run_prepare("single")
    assert code == 0
    assert "duplicate 7 images in two splits:" in out
    assert "val/val0 is the same image as train/train0" in out and "and 2 more" in out
    assert err == ""  # once is enough
