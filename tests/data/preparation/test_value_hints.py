"""Value ranges that nobody may have meant, and images that change how all others are stored."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.preparation.survey import ImageReader
from data.prepare import prepare


def noise(seed, *shape, dtype=np.uint8, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


@pytest.fixture
def report(tmp_path):
    """Prepares images: report(layout, {path: pixels or PIL image}, **settings) -> Report."""

    def run(layout, images, **settings):
        for name, pixels in images.items():
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".tif"):
                tifffile.imwrite(path, pixels)
            else:
                Image.fromarray(pixels.squeeze()).save(path)
        settings = {"val_fraction": 0, "test_fraction": 0, "overwrite": True} | settings
        if "side_map" in settings:
            settings["side_map"] = str(tmp_path / settings["side_map"])
        return prepare(
            layout=layout, source=tmp_path / "source", name="made", data_dir=tmp_path / "sets", **settings
        )

    return run


def deep(bits, *, folders=("A", "B")):
    """Pairs of 16-bit images that use some bits."""
    return {
        f"{folder}/{k}.png": noise(10 * bits + k, 40, 40, dtype=np.uint16, high=2**bits)
        for folder in folders
        for k in range(3)
    }


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_are_not_used(report, bits):
    images = deep(bits)
    hints = report("paired", images).hints
    assert len(hints) == 2 and hints[0].startswith("A: the highest value is ")
    assert f"of {bits} bits, prepare them again with --value_range=0,{2**bits - 1}" in hints[0]
    assert report("paired", images, value_range=(0, 2**bits - 1)).hints == ()


def test_all_bits_are_used(report):
    assert report("paired", deep(16)).hints == ()
    assert "hint" not in str(report("paired", deep(16)))


def test_the_flag_in_a_hint_gives_the_ranges_of_the_features_that_need_one(report):
    images = deep(12, folders="A") | deep(16, folders="B")
    [hint] = report("paired", images).hints
    assert hint.endswith("prepare them again with '--value_range=A:0,4095'")
    stored = report("paired", images, value_range={"A": (0, 4095)})
    assert stored.hints == ()
    assert stored.features["A"].value_range == (0, 4095)
    assert stored.features["B"].value_range == (0, 65535)


def floats(with_value=None, *, share=0.0, low=0.0, high=0.886):
    images = {}
    for folder in "AB":
        for k in range(3):
            rng = np.random.default_rng(ord(folder) + k)
            pixels = rng.uniform(low, high, (50, 50)).astype(np.float32)
            if with_value is not None and folder == "A":
                pixels[rng.uniform(size=pixels.shape) < share] = with_value
            images[f"{folder}/{k}.tif"] = pixels
    return images


@pytest.mark.parametrize("value", [-9999.0, -32768.0, 1e20, np.finfo(np.float32).min / 4])
def test_a_value_for_no_data(report, value):
    images = floats(value, share=0.03)
    prepared = report("paired", images)
    [hint] = prepared.hints
    count = sum((images[f"A/{k}.tif"] == np.float32(value)).sum() for k in range(3))
    assert hint.startswith(f"A: {100 * count / 7500:.2g} % of the values are {np.float32(value):g} and all ")
    assert "probably a no-data value; replace it in the files" in hint
    assert f"hint      {hint}" in str(prepared)


def test_one_wrong_pixel(report):
    images = floats()
    images["B/1.tif"][3, 4] = 700
    [hint] = report("paired", images).hints
    assert hint.startswith("B: 1 of 7500 values is 700 and all others ")


def test_a_few_values_far_from_most(report):
    images = floats()
    images["A/2.tif"][0, :5] = np.linspace(2, 100, 5)
    [hint] = report("paired", images).hints
    assert hint.startswith("A: 99.8 % of the values are ") and "clip them in the files" in hint


@pytest.mark.parametrize("low, high", [(0.0, 0.886), (-1.0, 1.0), (200.0, 8848.0)])
def test_floats_without_surprises(report, low, high):
    assert report("paired", floats(low=low, high=high)).hints == ()


def test_a_mask_of_floats_has_no_value_for_no_data(report):
    mask = np.zeros((20, 20), np.float32)
    mask[5:, 5:] = 1
    assert report("single", {"1.tif": mask}).hints == ()


def test_class_ids_of_eight_bits_may_give_their_range(report):
    images = {f"A/{k}.png": noise(k, 20, 20, high=19) for k in range(3)}
    images |= {f"B/{k}.png": noise(k, 20, 20, 3) for k in range(3)}
    [hint] = report("paired", images).hints
    assert "A: the highest value is 18, but 255 is taken for white; if the images hold class ids" in hint
    assert hint.endswith("prepare them again with '--value_range=A:0,18'")
    again = report("paired", images, value_range={"A": (0, 18)})
    assert again.hints == () and again.features["A"].value_range == (0, 18)
    assert again.features["B"].value_range == (0, 255)


def test_maps_of_class_ids_may_give_their_range(report):
    images = {f"{k}.png": noise(k, 20, 20, 3) for k in range(3)}
    images |= {f"../maps/{k}.png": noise(k, 20, 20, high=5) for k in range(3)}
    [hint] = report("single", images, side_map="maps").hints
    assert "side_map: the highest value is 4" in hint and "'--value_range=side_map:0,4'" in hint
    again = report("single", images, side_map="maps", value_range={"side_map": (0, 4)})
    assert again.features["side_map"].value_range == (0, 4) and again.hints == ()


def test_one_range_is_also_that_of_eight_bits(report):
    stored = report("single", {"1.png": noise(1, 8, 8, high=19)}, value_range=(0, 18))
    assert stored.features["image"].value_range == (0, 18)


def test_a_range_of_a_feature_that_is_not_there(report):
    with pytest.raises(ValueError, match="value_range: names 'C', but the images are A, B; correct it"):
        report("paired", deep(12), value_range={"C": (0, 1)})
    with pytest.raises(ValueError, match=r"value_range = \(3, 2\): the first must be less"):
        ImageReader(value_range={"A": (3, 2)})


def test_the_flag_takes_ranges_by_feature(save, run_prepare):
    for folder in "AB":
        save(f"{folder}/1.png", noise(0, 8, 8, high=5))
    code, out, err = run_prepare("paired", value_range="A:0,4;B:0,5", val_fraction=0, test_fraction=0)
    assert (code, err) == (0, "")
    assert "A: uint8, 1 channel, values 0 to 4\n" in out and "B: uint8, 1 channel, values 0 to 5\n" in out
    code, _, err = run_prepare("paired", value_range="A:0;B:0,5")
    assert code == 2 and "--value_range=0: must be two numbers such as 1,2" in err


def test_pictures_that_use_their_alpha_are_named(report, tmp_path):
    images = {f"{side}/{k}.png": noise(k, 16, 16, 3) for side in "AB" for k in range(10)}
    opaque = np.full((16, 16, 1), 255, np.uint8)
    images["A/3.png"] = np.concatenate([images["A/3.png"], opaque], axis=-1)  # has one, but does not use it
    assert report("paired", images).minorities == ()
    images["A/7.png"] = noise(7, 16, 16, 4)
    prepared = report("paired", images)
    assert prepared.features["A"].channels == 4 and prepared.features["B"].channels == 3
    assert prepared.minorities == (
        "A: 1 of 10 images uses its alpha channel, so all are stored as uint8 with 4 channels; to store no "
        "alpha, flatten it onto a background and prepare again:",
        f"  {tmp_path}/source/A/7.png",
    )
    lines = str(prepared).splitlines()
    assert f"mixed     {prepared.minorities[0]}" in lines and f"          {prepared.minorities[1]}" in lines


def test_many_pictures_that_use_their_alpha_are_counted(report):
    images = {f"{k}.png": noise(k, 8, 8, 4 if k < 8 else 3) for k in range(10)}
    first, *paths = report("single", images).minorities
    assert first.startswith("image: 8 of 10 images use their alpha channel")
    assert len(paths) == 6 and paths[-1] == "  and 3 more"


def test_the_domain_of_the_picture_is_named(report):
    images = {f"{side}/{k}.png": noise(k, 8, 8, 3) for side in "AB" for k in range(3)}
    images["B/1.png"] = noise(1, 8, 8, 4)
    assert report("unpaired", images).minorities[0].startswith("B: 1 of 3 images uses its alpha channel")


def test_one_picture_in_colour_or_of_16_bits_is_named(report):
    images = {f"{k}.png": noise(k, 8, 8) for k in range(5)}
    images["2.png"] = noise(2, 8, 8, 3)
    assert report("single", images).minorities[0].startswith("image: 1 of 5 images is in colour")
    images["2.png"] = noise(2, 8, 8, dtype=np.uint16, high=65536)
    assert (
        "1 of 5 images has 16 bits, so all are stored as uint16 with 1 channel"
        in (report("single", images).minorities[0])
    )
    images = {f"{k}.png": noise(k, 8, 8, 3) for k in range(5)} | {"2.png": noise(2, 8, 8)}
    assert report("single", images).minorities == ()
